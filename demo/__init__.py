"""The museum, a procedural dataset, and the tiny zoo trained on it."""
