"""What every exported graph keeps to; apart from the exporter, because `pack` and `check` need no torch."""

OPSET = 18
NEWEST_IR = 10
"""The newest that every ONNX Runtime since 1.20 loads."""
PARITY_LIMIT = 1e-4
"""Largest difference in probability to the torch module that a graph was traced from."""
