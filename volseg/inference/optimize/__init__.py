"""Optimisations of a trained network for inference on one device."""
