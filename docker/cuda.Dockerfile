# Unbuilt and untried: what a machine with an NVIDIA GPU and NVIDIA's container toolkit should need.
#
#   docker build -f docker/cuda.Dockerfile -t loadgen-vision-sut:cuda .
#   docker run --rm --gpus all --user "$(id -u)" loadgen-vision-sut:cuda kernels check
#
# The driver comes from the host; CUDA's compiler, CuPy, nvImageCodec, DALI and ONNX Runtime's build for CUDA are packages,
# installed by hash. None of this has run on a GPU yet: docs/gpu/README.md.
FROM python:3.13-slim-bookworm

RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*

RUN useradd sut && mkdir /app /output && chown sut /app /output
USER sut
WORKDIR /app
COPY --chown=sut . .

ENV HOME=/tmp OUTPUT_DIR=/output NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
# run_local.sh goes by the driver, which is not there while an image is built: CUDA 13 is named here.
RUN ./run_local.sh run --backend null --preprocess fused --help >/dev/null \
    && bash -euc 'ROOT=$PWD; source tools/setup_env.sh; setup_env onnxruntime-cu13 gpu-cu13 dali' \
    && rm -rf /tmp/.cache

ENTRYPOINT ["./run_local.sh"]
