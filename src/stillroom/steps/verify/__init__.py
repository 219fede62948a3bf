"""Decide whether answers are right."""
