"""Volumes and results made visible: Neuroglancer in the browser, and pictures."""

from volseg.view.pictures import save_panel, tinted
from volseg.view.viewer import Session, open_viewer

__all__ = ["Session", "open_viewer", "save_panel", "tinted"]
