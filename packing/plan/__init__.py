"""Estimate the run time on an accelerator."""
