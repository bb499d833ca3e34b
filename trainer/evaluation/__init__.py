"""Scores and samples on held-out images during training."""
