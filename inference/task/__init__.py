"""The input and output of a competition: image ids, image files and the submission."""
