"""At home: images to checkpoints and out-of-fold predictions, and those to thresholds. Imports `inference` only."""
