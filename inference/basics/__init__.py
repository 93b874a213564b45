"""Errors, files, tables, memory and the run log, used by all other packages."""
