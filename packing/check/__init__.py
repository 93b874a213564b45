"""Check a bundle against Kaggle's rules and its own hashes."""
