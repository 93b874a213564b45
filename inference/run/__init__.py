"""One run from a folder of images to submission.csv: plan, time budget, progress and results."""
