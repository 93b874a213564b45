"""Errors, files, tables, memory and the run log: what every other wing uses."""
