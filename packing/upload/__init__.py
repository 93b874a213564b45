"""Step 5: upload the bundle with Kaggle's own client."""
