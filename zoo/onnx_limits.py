"""Limits of every exported graph, in a module without torch for `pack` and `check`."""

OPSET = 18
NEWEST_IR = 10
"""Newest IR version that every ONNX Runtime since 1.20 loads."""
PARITY_LIMIT = 1e-4
"""Largest accepted difference in score between a graph and its torch module: a probability, or a share of the range."""
LARGEST = 2**31 - 1
"""Bytes of an ONNX file in one piece: a limit of protobuf."""
