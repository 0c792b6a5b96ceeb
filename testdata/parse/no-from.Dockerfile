RUN x
COPY a b
