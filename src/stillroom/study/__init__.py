"""Experiments about recipes: arms that differ in one thing, and what their difference is worth."""
