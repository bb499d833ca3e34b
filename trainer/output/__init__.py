"""What a run writes: checkpoints, models, cards, logs."""
