"""The demo dataset, which is drawn by code, and the small zoo trained on it."""
