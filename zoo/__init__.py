"""What packing, training and the demo share: the manifest as it is edited, networks, ONNX tracing, tables, plots."""
