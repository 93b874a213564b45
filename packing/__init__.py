"""At home: checkpoint to ONNX to bundle to notebook to rehearsal."""
