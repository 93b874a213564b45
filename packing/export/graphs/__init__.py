"""ONNX graphs of models: built from a network, and converted to other precisions."""
