"""Recipes that come with the package: one dataset per file."""
