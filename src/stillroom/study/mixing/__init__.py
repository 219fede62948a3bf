"""Weights of a mixture: random mixtures, a regression, a proposal, a confirmation."""
