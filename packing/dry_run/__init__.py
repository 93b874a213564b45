"""Step 4: run the bundle on this machine under Kaggle's conditions."""
