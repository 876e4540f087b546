"""Training data: labelled volumes, patches, targets and the dataloader."""
