"""The commands explore, explain, slices and compare: pages and tables about data and models."""
