"""Peak memory of a worker: planned and measured; reuse of freed memory."""
