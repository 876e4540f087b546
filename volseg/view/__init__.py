"""Volumes and results made visible: Neuroglancer in the browser, and pictures."""

from volseg.view.viewer import Session, open_viewer

__all__ = ["Session", "open_viewer"]
