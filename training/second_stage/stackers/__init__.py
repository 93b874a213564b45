"""The CNN and tree stackers, fitted and exported to ONNX."""
