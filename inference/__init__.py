"""The kernel: standard library, numpy, Pillow and onnxruntime; nothing else, ever."""

__version__ = "0.1.0"
