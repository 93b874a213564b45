"""Pages and tables about data and models: explore, explain, slices, compare."""
