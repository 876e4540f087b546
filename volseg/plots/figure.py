"""Figures of matplotlib, which is imported with the first."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(**options: Any) -> Figure:
    """Make a figure that no window shows.

    matplotlib's warnings on folders that it cannot write, and on its font cache, concern no figure: they are not shown
    unless a program sets the level of its logger.

    Args:
        options: of `matplotlib.figure.Figure`.
    """
    logger = logging.getLogger("matplotlib")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.ERROR)
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes a third of a second

    return Figure(**options)
