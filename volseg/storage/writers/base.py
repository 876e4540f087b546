"""What a format of volumes is to a conversion: it creates an empty volume, and opens it on workers to write boxes."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from volseg.errors import ConfigError
from volseg.storage.place import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from volseg.blocks import Box, Zyx
    from volseg.storage.conversion_record import OutputEntry
    from volseg.storage.marks import Written
    from volseg.storage.object_path import TargetPath
    from volseg.storage.pyramid import Pyramid

LABEL_TYPES = ("uint32", "uint64", "int32", "int64", "bool")
"""Types of volumes that hold labels or masks, not grey values."""


@dataclass(frozen=True)
class Layout:
    """How a format stores a volume of a shape and type.

    Attributes:
        chunk: voxels (z, y, x) that readers fetch at once.
        shard: unit of storage; None if each chunk is one.
        origin: position of the first voxel in the stored array.
        levels: factors of the coarser levels, each to the next finer one.
        place: voxel size and translation, as the format can state them.
        notes: what differs from what was asked for, a line each.
    """

    chunk: Zyx
    shard: Zyx | None
    place: Place
    origin: Zyx = (0, 0, 0)
    levels: tuple[Zyx, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def unit(self) -> Zyx:
        """Voxels that are written at once, so that two tasks never share a file."""
        return self.shard or self.chunk


@dataclass(frozen=True)
class LayoutRequest:
    """What a volume should be like.

    Attributes:
        shape: voxels (z, y, x).
        dtype: of a voxel.
        place: voxel size and translation.
        chunk: voxels that readers fetch at once; None for the default.
        shard: unit of storage; None for the default.
        sharded: False for a file for each chunk.
        levels: number of coarser levels; None for as many as viewers need.
        target: path, for messages.
    """

    shape: Zyx
    dtype: str
    place: Place
    chunk: Zyx | None
    shard: Zyx | None
    sharded: bool
    levels: int | None
    target: TargetPath


class Writer(Protocol):
    """An open volume; boxes are of whole units, in voxels (z, y, x) of the stored array."""

    @property
    def pyramid(self) -> Pyramid | None:
        """Its levels; None if the format has none that are written with it."""

    def write(self, box: Box, voxels: NDArray[Any], check: Callable[[], object]) -> Written:
        """Write the voxels of a box, and sync them to the disk.

        Args:
            box: of whole units.
            voxels: (z, y, x).
            check: called before anything gets its name; raises if the volume is another conversion's.

        Raises:
            TargetError: they cannot be written.
        """

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box back, from the disk."""

    def stored(self, box: Box) -> int:
        """Bytes that a box takes; 0 if some of its files are missing."""

    def folders(self, box: Box) -> set[TargetPath]:
        """Folders of the files of a box, to sync before it is marked."""

    def close(self) -> None:
        """Delete what is not part of the volume, when the last block is written or the run ends."""


class Format(Protocol):
    """A format of volumes; the type of plug-ins of the group `volseg.writers`."""

    extra: str
    """Module that it needs, of the extra `formats`, such as `tensorstore`; empty for none."""

    def layout(self, request: LayoutRequest) -> Layout:
        """How it stores a volume.

        Raises:
            ConfigError: it cannot, or an option does not apply to it.
        """

    def create(self, path: Path, output: OutputEntry, name: str, attributes: dict[str, Any]) -> None:
        """Create an empty volume; its metadata are complete.

        Args:
            path: of the new file or folder.
            output: shape, type, chunks and place.
            name: of the image.
            attributes: to keep in its metadata, where the format has room for them.

        Raises:
            TargetError: it cannot be written.
        """

    def open(self, path: Path, output: OutputEntry) -> Writer:
        """Open a volume that `create` made."""

    def owns(self, path: Path) -> bool:
        """Whether what is at a path is of this format, so that `--overwrite` may replace it."""


def refuse_missing_extra(name: str, extra: str) -> None:
    """Refuse a format whose package is not installed.

    Raises:
        ConfigError: with the line that installs it.
    """
    if extra and find_spec(extra) is None:
        raise ConfigError(f"--format {name} needs {extra}; install it with: pip install 'volseg[formats]'")


def refuse_type(name: str, dtype: str, supported: tuple[str, ...]) -> None:
    """Refuse a type that a format cannot hold.

    Raises:
        ConfigError: names those that it can.
    """
    if dtype not in supported:
        raise ConfigError(
            f"--format {name} holds no {dtype}; choose a --dtype of {', '.join(supported)}, or another --format"
        )


def refuse_option(name: str, given: Mapping[str, object]) -> None:
    """Refuse options that a format would ignore; each is given if it is neither None nor False.

    Raises:
        ConfigError: names the first.
    """
    for option, value in given.items():
        if value is not None and value is not False:
            raise ConfigError(f"{option} does not apply to --format {name}; leave it out")


def whole_voxels(place: Place, name: str) -> tuple[Zyx, Place, tuple[str, ...]]:
    """The translation in whole voxels, for a format that has no others.

    Returns:
        The translation in voxels, the place that it gives, and a note if that is another place.
    """
    z, y, x = (round(start) for start in place.translation_voxels)
    scale = place.scale
    moved = Place(scale, (z * scale[0], y * scale[1], x * scale[2]), place.is_nm)
    off = max(abs(a - b) for a, b in zip((z, y, x), place.translation_voxels, strict=True))
    note = f"{name} states a translation in whole voxels: {moved} stands for {place}"
    return (z, y, x), moved, (note,) if off > 1e-3 else ()
