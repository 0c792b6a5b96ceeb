# One node of a cluster, from the image of ./Dockerfile. What `run` gets behind the image's name is added to the command.
FROM example/redis
WORKDIR /data
ENTRYPOINT ["/usr/local/redis/redis-server", "/usr/local/redis/redis.conf"]
