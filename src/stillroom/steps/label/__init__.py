"""Measure: add columns, drop nothing."""
