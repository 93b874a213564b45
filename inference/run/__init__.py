"""One run from a folder of images to submission.csv; only this wing knows the order of the steps."""
