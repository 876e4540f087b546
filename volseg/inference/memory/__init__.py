"""Peak memory of a worker: planned, kept and measured."""
