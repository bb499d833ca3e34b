"""The published checkpoints: their tensors' names, their configuration, and conversion both ways."""
