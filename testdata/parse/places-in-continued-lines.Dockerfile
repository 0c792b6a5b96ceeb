FROM a
RUN a \
  b
COPY \
  # why
  --fro=x \
\
  --chown=é:1 a /b
RUN --mount=type=bind \
  --network=[31m x
USSER x
