"""What a competition asks: which images, where they are, and the form of the submission."""
