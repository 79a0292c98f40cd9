# A service's image with a model inside, for clusters that cannot fetch one. The context is the model's folder:
#
#   docker build -f docker/model.Dockerfile --build-arg IMAGE=llama-swarm/shard-worker:0.1.0 \
#     -t llama-swarm/shard-worker:0.1.0-model FOLDER          # FOLDER holds model.gguf
ARG IMAGE
FROM ${IMAGE}
# Not below /var/cache or /models, where volumes would cover it.
COPY model.gguf /model/model.gguf
ENV LLAMA_SWARM_MODEL=/model/model.gguf
