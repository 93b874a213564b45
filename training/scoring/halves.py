"""The two halves of the images for figures of a fit on other images: even and odd rows."""

HALVES = (slice(0, None, 2), slice(1, None, 2))
