"""Choose: drop rows by what was measured."""
