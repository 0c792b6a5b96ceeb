# escape=x
FORM alpine AS b
RUN echo hi \

  there
COPPY a b
COPY --form=biuld /out/app /usr/local/bin/app
COPY --from=biuld --foo=1 a
RUN[“a”]
ENV A=1 B
ENV GREETING=“hello world”
CMD <<EOF
foo
EOF
FROM alpine # the base
SHELL ['/bin/sh']
HEALTHCHECK --interval=5 CMD x
WORKDIR
RUN --mount=from=$X,target=/x --network=non ls
STOPSIGNAL
EXPOSE
RUN apt-get update
  && apt-get install
run cat <<EOF
x
 EOF
