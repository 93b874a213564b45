"""Step 0: a competition's folder becomes the declaration, labels, training table and folds of a zoo."""
