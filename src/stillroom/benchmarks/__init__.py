"""Benchmarks: where each is found, and what is wrong with it. For evaluation alone: no source.

Of texts, only those of our own `proxy_suite` are here.
"""
