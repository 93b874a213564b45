"""The second stage as the manifest declares it."""
