"""F2 with fitted thresholds, and bootstrap intervals."""
