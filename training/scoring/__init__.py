"""F2 with fitted thresholds, and intervals of differences."""
