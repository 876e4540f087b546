"""Training data: volumes, labels, patches, loader."""
