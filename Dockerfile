# Any command on a CPU, the demo without one:
#
#   docker build -t loadgen-vision-sut .
#   mkdir -p output
#   docker run --rm --user "$(id -u)" -v "$PWD/output:/output" loadgen-vision-sut
#   docker run --rm --user "$(id -u)" -v "$PWD/output:/output" -v /data/imagenet:/data:ro loadgen-vision-sut \
#       onnxruntime efficientnet-lite0 cpu --accuracy --dataset-path /data
#
# The set-up, and a run by another user, were tried in a plain folder; the image itself was not built, nor is it in CI.
FROM python:3.13-slim-bookworm

# For the kernels without a GPU. Without git and .git results name the version alone.
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*

RUN useradd sut && mkdir /app /output && chown sut /app /output
USER sut
WORKDIR /app
COPY --chown=sut . .

# Whoever runs it has a home folder for what is made once.
ENV HOME=/tmp OUTPUT_DIR=/output
# run_local.sh sets itself up, by hash. DALI and CUDA's packages are left out; what is absent is installed when asked for.
RUN ./run_local.sh run --backend onnxruntime,openvino --preprocess fused --precision int8 --help >/dev/null \
    && rm -rf /tmp/.cache

ENTRYPOINT ["./run_local.sh"]
