"""Step 3: write the dataset and the notebook."""
