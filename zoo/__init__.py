"""Shared code of packing, training and demo: editing the manifest, networks, ONNX tracing, tables, plots."""
