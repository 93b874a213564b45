"""What a training reads: tables, folds, images."""
