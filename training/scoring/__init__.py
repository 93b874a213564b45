"""The metric of a task, decision rules fitted to it, and bootstrap intervals."""
