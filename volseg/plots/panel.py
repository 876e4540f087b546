"""Panels: sections side by side in a PNG."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log10
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.errors import ConfigError, TargetError
from volseg.ops.contrast import grey_range
from volseg.plots.figure import new_figure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from volseg.blocks import ZyxFloat

_DPI = 100
_MIN_WIDTH, _MAX_WIDTH = 320, 560
"""Limits of the width of an image, in pixels."""
_GAP, _CAPTION, _TITLE = 14, 32, 38
_TEXT_COLOR = "#1c1c1c"


@dataclass(frozen=True, slots=True)
class PanelLayout:
    """Positions in a panel, in pixels from its upper left corner.

     gap   image   gap   image   gap
    +-------------------------------+
    |  title                        |   optional
    |  caption      caption         |
    |  #########    #########       |
    +-------------------------------+

    Attributes:
        columns: number of images.
        image_size: rows and columns of an image.
        title: whether there is a title.
    """

    columns: int
    image_size: tuple[int, int]
    title: bool

    @property
    def header(self) -> int:
        """Rows above the images."""
        return _CAPTION + (_TITLE if self.title else 0)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the figure."""
        rows, columns = self.image_size
        return self.header + rows + _GAP, self.columns * (columns + _GAP) + _GAP

    def left(self, column: int) -> int:
        """The first pixel column of an image."""
        return _GAP + column * (self.image_size[1] + _GAP)

    def axes_rect(self, column: int) -> tuple[float, float, float, float]:
        """Position of an image for `Figure.add_axes`: left, bottom, width, height as fractions of the figure."""
        rows, columns = self.size
        height, width = self.image_size
        return self.left(column) / columns, _GAP / rows, width / columns, height / rows


def panel_layout(shape: tuple[int, int], columns: int, *, title: bool, voxel_nm: ZyxFloat | None = None) -> PanelLayout:
    """Lay out a panel for sections of a shape (y, x): small ones are enlarged, large ones reduced.

    >>> panel_layout((128, 256), 3, title=False).size
    (206, 1016)
    """
    rows, columns_in_section = shape
    width = min(max(columns_in_section, _MIN_WIDTH), _MAX_WIDTH)
    height = min(max(round(width * rows / columns_in_section * _aspect(voxel_nm)), 1), 2 * _MAX_WIDTH)
    return PanelLayout(columns, (height, width), title)


def save_panel(
    path: Path,
    images: Sequence[tuple[str, NDArray[Any]]],
    *,
    title: str | None = None,
    voxel_nm: ZyxFloat | None = None,
) -> None:
    """Save sections side by side as a PNG, each under its caption.

    Args:
        path: of the PNG; an existing file is replaced.
        images: captions and sections (y, x). The type determines the colours: uint8 from 0 to 255 and floats within
            [0, 1] from 0 to 1, in grey; bool in black and white; other floats, 16-bit and signed 8-bit values in grey
            between percentiles; 32- and 64-bit integers as labels, with 0 black.
        title: above all.
        voxel_nm: voxel size (z, y, x) in nanometres; sets the aspect ratio and adds a scale bar to the first section.

    Raises:
        ConfigError: there is no section, or one is empty or not two-dimensional.
        TargetError: the file cannot be written.
    """
    for caption, section in images:
        if section.ndim != 2:
            raise ConfigError(f"section {caption!r} has shape {section.shape}; give an array (y, x)")
        if 0 in section.shape:
            raise ConfigError(f"section {caption!r} has shape {section.shape}; give one with pixels")
    if not images:
        raise ConfigError("a panel needs at least one section")
    figure = _make_figure(images, title, voxel_nm)
    try:
        figure.savefig(path, dpi=_DPI, format="png", facecolor="white")
    except OSError as error:
        raise TargetError(f"cannot write {path}: {error.strerror or error}; choose a writable folder") from error


def scale_bar_length_nm(width_nm: float) -> float:
    """The largest round length up to a quarter of a width: 1, 2 or 5 times a power of ten.

    >>> scale_bar_length_nm(2048), scale_bar_length_nm(1e5), scale_bar_length_nm(420)
    (500.0, 20000.0, 100.0)
    """
    limit = width_nm / 4
    power = 10.0 ** floor(log10(limit))
    return max(step for step in (power, 2 * power, 5 * power) if step <= limit * (1 + 1e-9))


def _aspect(voxel_nm: ZyxFloat | None) -> float:
    return 1.0 if voxel_nm is None else voxel_nm[1] / voxel_nm[2]


def _to_rgb(section: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert a section (y, x) to colours (y, x, 3)."""
    if section.dtype.kind in "iu" and section.dtype.itemsize >= 4:
        return _label_colors(section)
    vmin, vmax = _value_limits(section)
    finite = np.nan_to_num(section.astype(np.float64), nan=vmin, posinf=vmax, neginf=vmin)
    grey = np.clip((finite - vmin) / (vmax - vmin), 0, 1) * 255
    return np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=2)


def _value_limits(section: NDArray[Any]) -> tuple[float, float]:
    """Values that are drawn black and white."""
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


def _label_colors(labels: NDArray[Any]) -> NDArray[np.uint8]:
    """Colour each label by a hash of its id, the same in every figure; 0 is black."""
    hashes = (labels.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    channels = [(hashes >> np.uint64(shift)) % np.uint64(176) + np.uint64(64) for shift in (40, 48, 56)]
    colors: NDArray[np.uint8] = (np.stack(channels, axis=-1) * (labels != 0)[..., None]).astype(np.uint8)
    return colors


def _make_figure(images: Sequence[tuple[str, NDArray[Any]]], title: str | None, voxel_nm: ZyxFloat | None) -> Figure:
    rows, columns = images[0][1].shape
    layout = panel_layout((rows, columns), len(images), title=bool(title), voxel_nm=voxel_nm)
    height, width = layout.size
    figure = new_figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    # A canvas of its own shares no state with the user's pyplot. The imports take 0.4 s.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415

    FigureCanvasAgg(figure)
    if title:
        _add_text(figure, title, layout, column=0, top=_GAP - 2, max_width=width - 2 * _GAP, fontsize=14)
    for column, (caption, section) in enumerate(images):
        axes = figure.add_axes(layout.axes_rect(column))
        axes.set_axis_off()
        enlarged = section.shape[1] <= layout.image_size[1]
        interpolation = "nearest" if enlarged else "antialiased"
        axes.imshow(_to_rgb(section), aspect=_aspect(voxel_nm), interpolation=interpolation)
        if voxel_nm is not None and column == 0:
            _add_scale_bar(axes, (rows, columns), voxel_nm, layout.image_size)
        top = layout.header - _CAPTION + 9
        _add_text(figure, caption, layout, column=column, top=top, max_width=layout.image_size[1], fontsize=12)
    return figure


def _add_text(
    figure: Figure, text: str, layout: PanelLayout, *, column: int, top: int, max_width: int, fontsize: float
) -> None:
    """Add a line of text, reduced to a width in pixels (a letter is about 0.58 of its size wide)."""
    rows, columns = layout.size
    fitting = max_width * 72 / _DPI / (0.58 * max(len(text), 1))
    x, y = layout.left(column) / columns, 1 - top / rows
    figure.text(x, y, text, fontsize=min(fontsize, fitting), color=_TEXT_COLOR, va="top")


def _add_scale_bar(axes: Axes, shape: tuple[int, int], voxel_nm: ZyxFloat, image_size: tuple[int, int]) -> None:
    from matplotlib.patches import Rectangle  # noqa: PLC0415  # as above

    rows, columns = shape
    length_nm = scale_bar_length_nm(columns * voxel_nm[2])
    pixel_x, pixel_y = columns / image_size[1], rows / image_size[0]  # voxels per pixel
    length = length_nm / voxel_nm[2]
    right, bottom = columns - 12 * pixel_x, rows - 12 * pixel_y
    label = f"{length_nm / 1000:g} µm" if length_nm >= 1000 else f"{length_nm:g} nm"
    background = Rectangle(
        (right - length - 8 * pixel_x, bottom - 27 * pixel_y),
        length + 16 * pixel_x,
        34 * pixel_y,
        color="black",
        alpha=0.55,
        lw=0,
    )
    axes.add_patch(background)
    axes.add_patch(Rectangle((right - length, bottom - 4 * pixel_y), length, 4 * pixel_y, color="white", lw=0))
    axes.text(right - length / 2, bottom - 7 * pixel_y, label, color="white", ha="center", va="bottom", fontsize=9)
