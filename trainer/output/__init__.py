"""Output of a run: checkpoints, models, cards, logs."""
