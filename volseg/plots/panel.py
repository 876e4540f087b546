"""Sections side by side in a PNG, for a log, a report or a glance."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log10
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.errors import ConfigError, TargetError
from volseg.ops.contrast import grey_range

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from volseg.blocks import ZyxFloat

_DPI = 100
_SECTION = (320, 560)
"""The narrowest and the widest a section is drawn, in pixels."""
_GAP, _CAPTION, _TITLE = 14, 32, 38
_INK = "#1c1c1c"
_TINT = (255, 90, 31)


@dataclass(frozen=True, slots=True)
class PanelLayout:
    """Where the parts of a panel stand, in pixels from its upper left corner.

     gap  section  gap  section  gap
    +-------------------------------+
    |  title                        |   only with a title
    |  caption      caption         |
    |  #########    #########       |
    +-------------------------------+
    """

    columns: int
    section: tuple[int, int]
    title: bool

    @property
    def head(self) -> int:
        """Rows above the sections."""
        return _CAPTION + (_TITLE if self.title else 0)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the whole picture."""
        rows, columns = self.section
        return self.head + rows + _GAP, self.columns * (columns + _GAP) + _GAP

    def left(self, column: int) -> int:
        """The first pixel column of a section."""
        return _GAP + column * (self.section[1] + _GAP)

    def bounds(self, column: int) -> tuple[float, float, float, float]:
        """A section's place as matplotlib counts: left, bottom, width and height as fractions, from below."""
        rows, columns = self.size
        height, width = self.section
        return self.left(column) / columns, _GAP / rows, width / columns, height / rows


def panel_layout(shape: tuple[int, ...], columns: int, *, title: bool, voxel_nm: ZyxFloat | None = None) -> PanelLayout:
    """Lay out a panel for sections of a shape (y, x): enlarged where small, reduced where large.

    >>> panel_layout((128, 256), 3, title=False).size
    (206, 1016)
    """
    narrow, wide = _SECTION
    rows, width = shape[:2]
    across = min(max(width, narrow), wide)
    aspect = 1.0 if voxel_nm is None else voxel_nm[1] / voxel_nm[2]
    down = min(max(round(across * rows / width * aspect), 1), 2 * wide)
    return PanelLayout(columns, (down, across), title)


def save_panel(
    path: Path,
    columns: Sequence[tuple[str, NDArray[Any]]],
    *,
    title: str | None = None,
    voxel_nm: ZyxFloat | None = None,
) -> None:
    """Save sections side by side as a PNG, each under its caption.

    Args:
        path: the picture to write; one that exists is replaced.
        columns: captions and sections. A section (y, x) is drawn by its type: uint8 from 0 to 255, and floats within
            [0, 1] (probabilities) from 0 to 1, in grey; bool in black and white; other floats, 16-bit and signed
            8-bit values in grey between their percentiles; 32- and 64-bit integers (labels) in a colour for each, 0
            black. One of (y, x, 3), uint8, is shown as it is: see `tinted`.
        title: one line above all.
        voxel_nm: the voxel size (z, y, x) in nanometres; draws a scale bar in the first section, and voxels as
            tall as they are.

    Raises:
        ConfigError: no section, or one that is not two-dimensional.
        TargetError: the picture cannot be written.
    """
    for caption, section in columns:
        if section.ndim != 2 and not _is_coloured(section):
            raise ConfigError(f"section {caption!r} has shape {section.shape}; a picture takes (y, x)")
        if 0 in section.shape:
            raise ConfigError(f"section {caption!r} has shape {section.shape}: it holds no pixel")
    if not columns:
        raise ConfigError("a picture needs at least one section")
    figure = _drawn(columns, title, voxel_nm)
    try:
        figure.savefig(path, dpi=_DPI, format="png", facecolor="white")
    except OSError as error:
        raise TargetError(
            f"cannot write {path}: {error.strerror or error}; choose a folder that can be written"
        ) from error


def tinted(
    raw: NDArray[Any], probability: NDArray[Any], *, threshold: float = 0.5, strength: float = 0.65
) -> NDArray[np.uint8]:
    """Raw EM in grey with membranes in a colour over it, as (y, x, 3).

    Args:
        raw: a section (y, x).
        probability: the membrane probability of the same shape: floats in [0, 1], or uint8 as stored.
        threshold: below it nothing is tinted.
        strength: how much of the raw a probability of 1 covers.

    Raises:
        ConfigError: the shapes differ.

    >>> tinted(np.uint8([[100, 100]]), np.float32([[0.2, 1.0]]), strength=1).tolist()
    [[[100, 100, 100], [255, 90, 31]]]
    """
    if raw.shape != probability.shape:
        raise ConfigError(f"raw {raw.shape} and probability {probability.shape} do not cover the same section")
    likely = probability / 255 if probability.dtype == np.uint8 else probability.astype(np.float64)
    cover = (np.where(likely >= threshold, likely, 0) * strength)[..., None]
    mixed = _grey(raw)[..., None] * (1 - cover) + np.array(_TINT) * cover
    coloured: NDArray[np.uint8] = np.rint(np.clip(mixed, 0, 255)).astype(np.uint8)
    return coloured


def scale_bar_nm(width_nm: float) -> float:
    """A round length of about a quarter of a width: 1, 2 or 5 times a power of ten.

    >>> scale_bar_nm(2048), scale_bar_nm(1e5), scale_bar_nm(420)
    (500.0, 20000.0, 100.0)
    """
    wanted = width_nm / 4
    power = 10.0 ** floor(log10(wanted))
    return max(step for step in (power, 2 * power, 5 * power) if step <= wanted * (1 + 1e-9))


def _is_coloured(section: NDArray[Any]) -> bool:
    return section.ndim == 3 and section.shape[2] == 3 and section.dtype == np.uint8


def _grey(section: NDArray[Any]) -> NDArray[np.float64]:
    """A section's greys from 0 to 255."""
    low, high = _span(section)
    return (
        np.clip(
            (np.nan_to_num(section.astype(np.float64), nan=low, posinf=high, neginf=low) - low) / (high - low), 0, 1
        )
        * 255
    )


def _span(section: NDArray[Any]) -> tuple[float, float]:
    """The values drawn black and white."""
    if section.dtype == np.uint8:
        return 0, 255
    if section.dtype == np.bool_ or _is_probability(section):
        return 0, 1
    return grey_range(section) or (float(section.flat[0]) - 1, float(section.flat[0]) + 1)


def _is_probability(section: NDArray[Any]) -> bool:
    if section.dtype.kind != "f":
        return False
    finite = section[np.isfinite(section)]
    return not finite.size or bool(finite.min() >= 0 and finite.max() <= 1)


def _pixels(section: NDArray[Any]) -> NDArray[np.uint8]:
    """A section as (y, x, 3)."""
    if _is_coloured(section):
        return section
    if section.dtype.kind in "iu" and section.dtype.itemsize >= 4:
        return _label_colours(section)
    return np.repeat(np.rint(_grey(section)).astype(np.uint8)[..., None], 3, axis=2)


def _label_colours(labels: NDArray[Any]) -> NDArray[np.uint8]:
    """A colour for each label, the same in every picture; 0 is black."""
    ids = labels.astype(np.uint64)
    mixed = (ids + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    channels = [(mixed >> np.uint64(shift)) % np.uint64(176) + np.uint64(64) for shift in (40, 48, 56)]
    coloured: NDArray[np.uint8] = (np.stack(channels, axis=-1) * (labels != 0)[..., None]).astype(np.uint8)
    return coloured


def _drawn(columns: Sequence[tuple[str, NDArray[Any]]], title: str | None, voxel_nm: ZyxFloat | None) -> Figure:
    # matplotlib takes 0.4 s; a figure of its own shares no state with a user's pyplot.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    layout = panel_layout(columns[0][1].shape, len(columns), title=bool(title), voxel_nm=voxel_nm)
    rows, width = layout.size
    figure = Figure(figsize=(width / _DPI, rows / _DPI), dpi=_DPI)
    FigureCanvasAgg(figure)
    if title:
        _write(figure, title, layout, column=0, top=_GAP - 2, room=width - 2 * _GAP, points=14)
    for column, (caption, section) in enumerate(columns):
        axes = figure.add_axes(layout.bounds(column))
        _show(axes, section, layout, voxel_nm)
        if voxel_nm is not None and column == 0:
            _add_scale_bar(axes, section.shape, voxel_nm, layout.section)
        top = layout.head - _CAPTION + 9
        _write(figure, caption, layout, column=column, top=top, room=layout.section[1], points=12)
    return figure


def _show(axes: Axes, section: NDArray[Any], layout: PanelLayout, voxel_nm: ZyxFloat | None) -> None:
    axes.set_axis_off()
    aspect = 1.0 if voxel_nm is None else voxel_nm[1] / voxel_nm[2]
    enlarged = section.shape[1] <= layout.section[1]
    axes.imshow(_pixels(section), aspect=aspect, interpolation="nearest" if enlarged else "antialiased")


def _write(figure: Figure, text: str, layout: PanelLayout, *, column: int, top: int, room: int, points: float) -> None:
    """One line of text, smaller where it would not fit its room (a letter is about 0.58 of its size wide)."""
    rows, columns = layout.size
    fitting = room * 72 / _DPI / (0.58 * max(len(text), 1))
    figure.text(
        layout.left(column) / columns, 1 - top / rows, text, fontsize=min(points, fitting), color=_INK, va="top"
    )


def _add_scale_bar(axes: Axes, shape: tuple[int, ...], voxel_nm: ZyxFloat, drawn: tuple[int, int]) -> None:
    from matplotlib.patches import Rectangle  # noqa: PLC0415  # as above

    rows, columns = shape[:2]
    length_nm = scale_bar_nm(columns * voxel_nm[2])
    pixel_x, pixel_y = columns / drawn[1], rows / drawn[0]  # voxels in a drawn pixel
    length = length_nm / voxel_nm[2]
    right, bottom = columns - 12 * pixel_x, rows - 12 * pixel_y
    label = f"{length_nm / 1000:g} µm" if length_nm >= 1000 else f"{length_nm:g} nm"
    plate = Rectangle(
        (right - length - 8 * pixel_x, bottom - 27 * pixel_y),
        length + 16 * pixel_x,
        34 * pixel_y,
        color="black",
        alpha=0.55,
        lw=0,
    )
    axes.add_patch(plate)
    axes.add_patch(Rectangle((right - length, bottom - 4 * pixel_y), length, 4 * pixel_y, color="white", lw=0))
    axes.text(right - length / 2, bottom - 7 * pixel_y, label, color="white", ha="center", va="bottom", fontsize=9)
