"""The steps from trained checkpoints to a Kaggle dataset and its notebook, one folder per step."""
