"""Figures drawn with matplotlib: image panels and curves."""
