"""The input of a training: tables, folds and images."""
