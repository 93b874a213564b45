"""Image files to the squares that a model sees."""
