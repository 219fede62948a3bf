"""Searches: studies in order, the winner of each going into the recipe of the next."""
