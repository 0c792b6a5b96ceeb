FROM a
LABEL a=1 \
  b=2 # two
  c=3
ENV A
ARG =x
FROM b as 1x
FROM c AS
FROM c d
VOLUME ""
VOLUME [1]
ONBUILD ONBUILD RUN x
ONBUILD FROM x
ONBUILD
ADD --from=a x y
RUN --mout=type=bind x
RUN --security=insecur x
HEALTHCHECK FOO
HEALTHCHECK --retries=x CMD y
COPY a <<EOF
x
EOF
// comment
A=b
RUN x
SHELL /bin/sh
COPY --link=maybe --link a b
