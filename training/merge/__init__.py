"""Merge the zoos and bundles of a team into one zoo."""
