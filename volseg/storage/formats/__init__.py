"""Formats of other programs, read through their own libraries."""
