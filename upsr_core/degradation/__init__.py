"""Making LR images from HR images, as training and `upsr evaluate` do."""
