"""Blend, stackers and decision: from the models' scores to labels."""
