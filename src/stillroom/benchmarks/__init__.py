"""Benchmarks of our own, as data files. For evaluation alone: no source may be one of them."""
