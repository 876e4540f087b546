"""TIFF files as stacks of sections."""

from __future__ import annotations

import logging
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import tifffile

from volseg.blocks import Box
from volseg.errors import SourceError, VolsegError
from volseg.storage.axes import AxisLayout, ReadOptions, at_channel, axis_layout, refuse_other_order
from volseg.storage.place import Place
from volseg.storage.tiff_check import refuse_damaged_pages, refuse_missing_codec
from volseg.storage.tiff_place import tiff_place

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from volseg.blocks import Zyx

Values: TypeAlias = Literal["grey", "labels", "either"]
"""Greys are read as a viewer shows them, labels as they are stored; of either, coloured palettes are read as labels."""
_ZYX = ("z", "y", "x")
_LOGGER = logging.getLogger("tifffile")
_changing_logger = threading.Lock()
_LOSSY = (tifffile.COMPRESSION.OJPEG, tifffile.COMPRESSION.JPEG)
_DAMAGED = re.compile(r"invalid (page |value )?offset|corrupt|circular|failed to reshape", re.IGNORECASE)
"""Messages of tifffile after which it returns fewer pages than the file had."""
_SEQUENCE = ("I", "Q")
"""Axes that tifffile does not know: pages one after another."""


@dataclass(frozen=True)
class TiffStack:
    """The sections of a TIFF file.

    Attributes:
        path: of the file.
        dtype: of the sections as read.
        layout: where z, y and x lie in the image of the file.
        place: voxel size and translation.
        state: bytes and time of modification (ns) of the file when it was opened.
        grey: the grey value of each stored value; None where they are the same.
    """

    path: Path
    dtype: str
    layout: AxisLayout
    place: Place
    state: tuple[int, int]
    grey: NDArray[Any] | None = None

    @property
    def shape(self) -> Zyx:
        """Sections, rows, columns."""
        return self.layout.volume_shape

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read."""
        return (self.path,)

    def read(self, first: int, stop: int) -> NDArray[Any]:
        """Read sections [first, stop) as (z, y, x).

        Raises:
            SourceError: they cannot be decoded, or the file is another than when it was opened.
        """
        box = Box((first, 0, 0), (stop, *self.shape[1:]))
        with _opened(self.path, f"sections {first} to {stop - 1} of {self.path}") as tiff:
            if _state_of(self.path) != self.state:
                raise SourceError(f"{self.path} has changed since it was opened; start again")
            image = _Image(tiff.series[0], self.layout.shape)
            stored = self.layout.read(image.__getitem__, box, image.dtype.name)
            return stored if self.grey is None else self.grey[stored]


def open_tiff(path: Path, options: ReadOptions, values: Values) -> TiffStack:
    """Open a TIFF file; only its structure is read.

    Args:
        path: of the file.
        options: axes and channel, if the file has others than sections, rows and columns.
        values: what the values are.

    Raises:
        SourceError: it is damaged, holds several images or channels, or colours.
        ConfigError: options that do not fit it.
    """
    with _opened(path, str(path)) as tiff:
        state = _state_of(path)
        refuse_damaged_pages(tiff, path)
        if len(tiff.series) != 1 or not tiff.pages:
            raise SourceError(
                f"{path} holds {len(tiff.series)} images of different shapes or kinds; save each as a file"
            )
        series, page = tiff.series[0], tiff.pages.first
        refuse_missing_codec(page, path)
        if series.dtype is None:
            raise SourceError(f"{path} holds values of an unknown type; save it as 8 or 16 bit")
        names = [letter.lower() for letter in series.axes]
        if "Z" not in series.axes and sum(series.axes.count(letter) for letter in _SEQUENCE) == 1:
            names = ["z" if letter.upper() in _SEQUENCE else letter for letter in names]
        shape = tuple(map(int, series.shape))
        if "Y" in series.axes and len(set(series.axes) - set("YXS")) == 0:
            names, shape = ["z", *names], (1, *shape)
        layout = axis_layout(str(path), shape, names, options.axes)
        if options.axes is None:
            refuse_other_order(layout, str(path))
        if options.channel is None and layout.channel_axis is not None and names[layout.channel_axis] == "s":
            raise SourceError(f"{path} holds colours; sections must be grey: save it so, or choose one with --channel")
        is_time = layout.channel_axis is not None and names[layout.channel_axis] == "t"
        layout = at_channel(layout, str(path), options.channel, kind="times" if is_time else "channels")
        if values == "labels" and page.compression in _LOSSY:
            raise SourceError(f"{path} is compressed as JPEG, whose values are not exact; save labels as PNG or TIFF")
        grey = _grey_values(path, page, np.dtype(series.dtype), values)
        place = _stored_place(tiff_place(tiff), names, layout) if options.axes else tiff_place(tiff)
    dtype = np.dtype(series.dtype).name if grey is None else grey.dtype.name
    return TiffStack(path, dtype, layout, place, state, grey)


def _state_of(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _stored_place(place: Place, names: Sequence[str], layout: AxisLayout) -> Place:
    """The place of a file whose axes the user states to be others than it names."""
    if any(names[axis] not in _ZYX for axis in layout.axes):
        return Place(problem="its voxel size is not that of the stated axes") if place.is_nm else Place()
    return place.transposed([_ZYX.index(names[axis]) for axis in layout.axes])


class _Image:
    """The image of a series, indexed without reading more pages than are asked for."""

    def __init__(self, series: tifffile.TiffPageSeries, shape: tuple[int, ...]) -> None:
        self.series, self.shape, self.dtype = series, shape, np.dtype(series.dtype)

    def __getitem__(self, index: tuple[int | slice, ...]) -> NDArray[Any]:
        series = self.series
        if series.dataoffset is not None:
            # One file offset for all voxels: of many pages, or of ImageJ's stacks above 4 GB, which have one page.
            dtype = self.dtype.newbyteorder(series.keyframe.parent.byteorder)
            end = series.dataoffset + int(np.prod(self.shape)) * dtype.itemsize
            if end > series.keyframe.parent.filehandle.size:
                raise SourceError(f"it ends before its {end} bytes; copy the file again")
            path = Path(series.keyframe.parent.filehandle.path)
            return np.asarray(np.memmap(path, dtype, "r", series.dataoffset, self.shape)[index])
        within = len(series.keyframe.shape)
        leading = self.shape[: len(self.shape) - within]
        if int(np.prod(leading)) != len(series.pages):
            raise SourceError(f"it has {len(series.pages)} pages for {int(np.prod(leading))} sections; save it again")
        chosen = [
            range(n)[part] if isinstance(part, slice) else (part,) for part, n in zip(index, leading, strict=False)
        ]
        numbers = [int(np.ravel_multi_index(at, leading)) if at else 0 for at in product(*chosen)]
        pages = [self._page(number)[index[len(leading) :]] for number in numbers]
        lengths = [len(range(n)[part]) for part, n in zip(index, leading, strict=False) if isinstance(part, slice)]
        return np.stack(pages).reshape(*lengths, *pages[0].shape)

    def _page(self, number: int) -> NDArray[Any]:
        page = self.series.pages[number]
        if page is None:
            raise SourceError(f"page {number} is missing; copy all of its files")
        return np.asarray(page.asarray())


def _grey_values(path: Path, page: Any, dtype: np.dtype[Any], values: Values) -> NDArray[Any] | None:
    """The grey value that is read for each stored value; None where it is the value itself."""
    if values == "labels":
        return None
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None:
        return grey_palette(path, np.asarray(page.colormap).T >> 8, values)
    if page.photometric != tifffile.PHOTOMETRIC.MINISWHITE or dtype.kind == "b":
        return None
    if dtype.kind != "u" or dtype.itemsize > 2:
        raise SourceError(f"{path} is {dtype.name} with white as zero, whose greys are not defined; save it inverted")
    return np.arange(2**page.bitspersample - 1, -1, -1).astype(dtype)


def grey_palette(path: Path, colours: NDArray[Any], values: Values) -> NDArray[np.uint8] | None:
    """The grey value that is read for each index of a palette; None where it is the index itself.

    Args:
        path: of the image, for messages.
        colours: (indices, 3), red, green and blue in 0..255.
        values: what the values are.

    Raises:
        SourceError: the palette has colours, and grey values are needed.
    """
    has_colours = (colours != colours[:, :1]).any()
    if values == "labels" or (values == "either" and has_colours):
        return None
    if has_colours:
        raise SourceError(f"{path} has a palette of colours, and grey values are needed; save it as grey")
    return colours[:, 0].astype(np.uint8)


@contextmanager
def _opened(path: Path, what: str) -> Iterator[tifffile.TiffFile]:
    """Open a file; a damaged one is an error, and tifffile prints nothing."""
    try:
        with _records() as records, tifffile.TiffFile(path) as tiff:
            _refuse_damaged(records.messages, path, tiff)
            yield tiff
            _refuse_damaged(records.messages, path, tiff)
    except SourceError as error:
        raise error if str(path) in str(error) else SourceError(f"cannot read {what}: {error}") from error
    except VolsegError:
        raise
    except Exception as error:  # tifffile and its codecs raise errors of many kinds
        reason = " ".join(str(error).split())
        raise SourceError(f"{what} cannot be read as a TIFF: {reason}; copy it again, or save it anew") from error


def _refuse_damaged(messages: Sequence[str], path: Path, tiff: tifffile.TiffFile) -> None:
    _ = tiff.series  # reading them is what finds most damage
    damage = [message for message in messages if _DAMAGED.search(message)]
    if damage:
        reason = re.sub(r"^<.*?> (raised )?", "", damage[0])
        raise SourceError(f"{path} is damaged or cut short ({reason}); copy it again")


class _Records(logging.Handler):
    """Keeps the messages of a logger in this thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.messages.append(record.getMessage())


@contextmanager
def _records() -> Iterator[_Records]:
    """Keep what tifffile logs in this thread; nothing of it is printed as long as any thread does."""
    records = _Records()
    with _changing_logger:
        _LOGGER.addHandler(records)
        _LOGGER.propagate = False
    try:
        yield records
    finally:
        with _changing_logger:
            _LOGGER.removeHandler(records)
            _LOGGER.propagate = not any(isinstance(handler, _Records) for handler in _LOGGER.handlers)
