"""A network optimised for inference on one device."""
