"""Training: from a recipe to checkpoints with out-of-fold predictions."""
