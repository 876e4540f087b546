"""Conversions: a volume of any format is copied, block by block, into one of another."""
