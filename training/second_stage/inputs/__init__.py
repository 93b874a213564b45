"""The members of the second stage, described."""
