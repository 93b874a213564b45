"""Scores of models to one score per image and label, and scores to labels."""
