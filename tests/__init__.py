"""Tests; a package, because some distributions install another one of this name."""
