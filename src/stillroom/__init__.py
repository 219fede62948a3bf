"""Stillroom distils reasoning datasets by recipe and finds out which recipe is best."""

__version__ = "0.1.0"
