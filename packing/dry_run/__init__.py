"""Step 4: run the bundle on this machine as Kaggle would."""
