# For a rented GPU (docs/guides/own-photos.md):
#   docker build -t cgrpo . && docker run --gpus all --shm-size 8g -it -v "$PWD:/data" cgrpo
# PyTorch's wheel brings its own CUDA, so the host needs only NVIDIA's driver and container toolkit.
FROM python:3.11-slim
COPY . /opt/cgrpo
RUN pip install --no-cache-dir -c /opt/cgrpo/constraints.txt "/opt/cgrpo[int8]"
ENV HF_HOME=/data/huggingface PATH=/opt/cgrpo/runs:$PATH
WORKDIR /data
CMD ["bash"]
