"""Measurements: figures go to benchmarks/results as JSON."""
