"""Drop questions that a benchmark asks."""
