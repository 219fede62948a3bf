"""The recipe: its form, how it is read and checked, and the pipeline that it stands for."""
