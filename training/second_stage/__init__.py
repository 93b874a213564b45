"""The second stage: many members' scores to one, and one score to labels, fitted out of fold."""
