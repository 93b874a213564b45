"""Step 2: export models to ONNX and measure each file."""
