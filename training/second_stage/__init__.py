"""The command `ensemble`: blend weights, stackers and decision rules from out-of-fold predictions."""
