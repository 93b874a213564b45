"""Tables of a zoo and of its results: train.csv, folds, out-of-fold arrays, submissions."""
