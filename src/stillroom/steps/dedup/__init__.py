"""Drop questions that the dataset already has."""
