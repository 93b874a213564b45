"""From images to checkpoints, and from out-of-fold predictions to an ensemble."""
