"""Benchmarks; each writes its figures to benchmarks/results as JSON."""
