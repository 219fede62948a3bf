"""Export: a finished table as a dataset that others can load, with a card that tells its story."""
