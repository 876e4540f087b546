"""For tests and benchmarks: small models and volumes (`factories`), test doubles (`doubles`), and laws as functions.

What is exported here needs no pytest; a network of your own is tested with `assert_no_seams(model_file, raw)`.
"""

from volseg.testing.laws import assert_no_seams

__all__ = ["assert_no_seams"]
