"""Changing values of a manifest."""
