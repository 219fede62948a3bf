"""Grading students: benchmarks are data, and answers are verified as everywhere else."""
