"""Discrete events under the real driver: a fake clock and fake workers."""
