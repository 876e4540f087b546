"""Figures drawn with matplotlib: image panels and curves."""

from volseg.plots.figure import new_figure

__all__ = ["new_figure"]
