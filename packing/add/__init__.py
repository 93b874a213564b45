"""Step 1: add a trained model to the manifest."""
