"""Running ONNX models on CPUs and GPUs: devices, precisions, batch sizes, views."""
