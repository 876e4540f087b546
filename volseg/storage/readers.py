"""Open volumes of any format: the built-in ones, and those of plug-ins."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from volseg.blocks import Box
from volseg.errors import ConfigError, SourceError
from volseg.registry import Registry
from volseg.storage.axes import DEFAULT_OPTIONS, ReadOptions
from volseg.storage.built_in_readers import BUILT_IN
from volseg.storage.foreign import foreign_format
from volseg.storage.image_stack import open_stack
from volseg.storage.place import Place, place_of
from volseg.storage.section_folder import is_pattern
from volseg.storage.zarr_volume import GREY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volseg.blocks import Zyx, ZyxFloat
    from volseg.storage.image_stack import Stack


_NEUROGLANCER = re.compile(r"(zarr[23]?|n5|precomputed)://(?=[a-z][a-z0-9]*://)")


class Readable(Protocol):
    """A volume that is read in boxes; it can be pickled, and worker processes open it again."""

    @property
    def location(self) -> str:
        """Path or URL."""
        ...

    @property
    def shape(self) -> Zyx:
        """Voxels along z, y, x."""
        ...

    @property
    def dtype(self) -> str:
        """The type of a voxel, such as `uint8`."""
        ...

    @property
    def voxel_nm(self) -> ZyxFloat | None:
        """Voxel size (z, y, x) in nanometres; None if not stated."""
        ...

    @property
    def translation_nm(self) -> ZyxFloat | None:
        """Translation (z, y, x) of the first voxel in nanometres; None if not stated."""
        ...

    @property
    def chunk(self) -> Zyx:
        """Voxels (z, y, x) that are decoded together."""
        ...

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box as (z, y, x), mirrored outside the volume, in the volume's type."""
        ...


class Reader(Protocol):
    """A volume format; the type of plug-ins of the group `volseg.readers`."""

    def accepts(self, location: str) -> bool:
        """Whether a path or URL names a volume of this format; called often, so it only looks at names and files."""
        ...

    def open(self, location: str, dtypes: tuple[str, ...]) -> Readable:
        """Open a volume.

        Args:
            location: a path or URL that `accepts` returned True for.
            dtypes: supported voxel types; a volume of another type is refused by `open_readable`.

        Raises:
            SourceError: it cannot be read.
        """
        ...


@dataclass(frozen=True)
class Sections:
    """A volume read as a stack of sections."""

    volume: Readable

    @property
    def shape(self) -> Zyx:
        """Sections, rows, columns."""
        return self.volume.shape

    @property
    def dtype(self) -> str:
        """The type of a voxel."""
        return self.volume.dtype

    @property
    def place(self) -> Place:
        """Voxel size and translation."""
        return place_of(self.volume)

    def read(self, first: int, stop: int) -> NDArray[Any]:
        """Sections [first, stop) as (z, y, x)."""
        return self.volume.read(Box((first, 0, 0), (stop, *self.shape[1:])))


READERS: Registry[Reader] = Registry("volseg.readers", "reader", dict(BUILT_IN))
"""Name -> volume format. Plug-ins are asked before built-ins, these in this order."""


def open_readable(
    location: str, dtypes: tuple[str, ...] = GREY, options: ReadOptions = DEFAULT_OPTIONS, level: int | None = None
) -> Readable:
    """Open a volume of any format for reading boxes; the first read of a stack of images decodes it.

    Args:
        location: a Zarr, an N5 or a precomputed volume (path or URL), FILE.h5:DATASET, a TIFF, an MRC, NRRD or NIfTI
            file, a folder of sections or a pattern of their names, a WEBKNOSSOS layer, or a location that the reader of
            a plug-in accepts.
        dtypes: supported voxel types, by default those of grey values.
        options: what the user states of it.
        level: of an OME-Zarr group, 0 for the finest, which is the default.

    Raises:
        SourceError: it does not exist, has no known format or another type, or does not fit on the disk decoded.
        ConfigError: options that do not apply to it; the reader of a plug-in cannot be imported.
    """
    location = _path_of(location)
    name = _reader_name(location)
    _refuse_options(location, name, options, level)
    volume: Readable
    if name in BUILT_IN:
        volume = BUILT_IN[name].open(location, dtypes, options, level)
    else:
        volume = READERS[name].open(location, dtypes)
    if volume.dtype not in dtypes:
        raise SourceError(f"{location} holds {volume.dtype}; supported types: {', '.join(dtypes)}")
    return volume


def open_sections(location: str, dtypes: tuple[str, ...] = GREY, options: ReadOptions = DEFAULT_OPTIONS) -> Stack:
    """Open a volume of any format for one pass over its sections.

    Args:
        location: as in `open_readable`; stacks are not decoded beforehand.
        dtypes: supported voxel types, by default those of grey values.
        options: what the user states of it.

    Raises:
        SourceError: it does not exist, has no known format, or has another type.
        ConfigError: options that do not apply to it; the reader of a plug-in cannot be imported.
    """
    location = _path_of(location)
    name = _reader_name(location)
    if name == "stack":
        _refuse_options(location, name, options, None)
        return open_stack(Path(location), dtypes, options)
    return Sections(open_readable(location, dtypes, options))


def _path_of(location: str) -> str:
    """A location without `file://`, nor the format that Neuroglancer puts before a URL."""
    if not location:
        raise SourceError("the volume's location is empty; name a path or a URL")
    location = _NEUROGLANCER.sub("", location).removeprefix("file://")
    if "://" not in location:
        try:
            Path(location).stat()
        except (FileNotFoundError, NotADirectoryError):  # or the name of a dataset in a file follows
            pass
        except (OSError, ValueError) as error:
            raise SourceError(f"{location} cannot be read: {getattr(error, 'strerror', error)}") from error
    return location


def _refuse_options(location: str, reader: str, options: ReadOptions, level: int | None) -> None:
    """Refuse options that the reader of a volume would ignore."""
    is_folder = Path(location).is_dir() or is_pattern(Path(location))
    given = {
        "--axes": options.axes is not None and reader not in READERS.builtins,
        "--channel": options.channel is not None and reader not in READERS.builtins,
        "--missing": options.missing != "refuse" and not (reader == "stack" and is_folder),
        "--scale-level": level is not None and not (reader in BUILT_IN and BUILT_IN[reader].has_levels),
    }
    for option, refused in given.items():
        if refused:
            raise ConfigError(f"{option} does not apply to {location}; leave it out")


def is_zarr(location: str) -> bool:
    """Whether a path or URL is read as a Zarr."""
    return _reader_name(_path_of(location)) == "zarr"


def _reader_name(location: str) -> str:
    """The name of the reader that accepts a location."""
    plugins = [name for name in READERS if name not in READERS.builtins]
    accepting = [name for name in plugins if READERS[name].accepts(location)]
    if len(accepting) > 1:
        raise SourceError(f"{location} is accepted by the readers {' and '.join(accepting)}; uninstall one of them")
    accepting += [name for name in BUILT_IN if not accepting and BUILT_IN[name].accepts(location)][:1]
    if not accepting:
        reason = foreign_format(location) or (
            f"{location} is neither a Zarr, an HDF5 file (.h5, .hdf, .hdf5) or a TIFF (.tif, .tiff), nor a folder of "
            "TIFF, PNG, JPEG or BMP sections, nor N5, precomputed, MRC, NRRD, NIfTI or a WEBKNOSSOS layer"
        )
        raise SourceError(reason + (f"; the readers {' and '.join(plugins)} do not accept it" if plugins else ""))
    return accepting[0]
