"""Predictions scored against ground truth."""
