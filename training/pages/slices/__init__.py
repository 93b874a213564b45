"""The command slices: figures of models and of the blend by parts of the images and labels."""
