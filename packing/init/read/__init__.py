"""Reading a competition's folder: tables, cells, the sample submission, the truth and the image files."""
