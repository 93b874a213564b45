"""From out-of-fold predictions to blend weights, stackers, thresholds and their honest F2."""
