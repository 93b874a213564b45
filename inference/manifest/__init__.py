"""weights_manifest.json: its records, schema and checks, and the files that it names."""
