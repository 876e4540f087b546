"""Verification of a target: its shards, marks and metadata against each other, and their repair."""
