"""Volumes and results in Neuroglancer, in the browser."""

from volseg.view.viewer import Session, open_viewer

__all__ = ["Session", "open_viewer"]
