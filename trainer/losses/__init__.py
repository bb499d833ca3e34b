"""Terms of the training losses."""
