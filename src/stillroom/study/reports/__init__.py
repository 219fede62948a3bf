"""What studies, races and searches found: pages of words, tables and plots."""
