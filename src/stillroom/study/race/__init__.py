"""Races: arms in rounds at growing scales, until one can be chosen."""
