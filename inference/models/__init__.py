"""ONNX sessions on CPUs and GPUs: devices, precisions, batch sizes, views."""
