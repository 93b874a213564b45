"""weights_manifest.json: its records, its schema, its checks, and the files that it names."""
