"""Exact text kernels in C, each with a plain Python reference beside it."""
