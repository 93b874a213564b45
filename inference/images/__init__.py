"""Reading images and preparing the square inputs of models."""
