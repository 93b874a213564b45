"""Checkpoint files: weights read in every common form, and written as safetensors."""
