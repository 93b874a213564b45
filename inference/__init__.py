"""The code that runs in the kernel; it imports only the standard library, numpy, Pillow and onnxruntime."""

__version__ = "0.1.0"
