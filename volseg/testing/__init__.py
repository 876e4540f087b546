"""For tests and benchmarks: small models and volumes, doubles, and the laws as functions."""
