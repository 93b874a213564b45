"""The page of a fitted ensemble."""
