"""The built-in volume formats, in the order in which they are asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volseg.errors import SourceError
from volseg.storage.axes import DEFAULT_OPTIONS, ReadOptions
from volseg.storage.formats import mrc, n5, nifti, nrrd, precomputed, webknossos
from volseg.storage.hdf5 import is_hdf5, open_hdf5
from volseg.storage.image_stack import is_stack
from volseg.storage.section_folder import has_sections, is_pattern
from volseg.storage.unpacked_stack import open_unpacked
from volseg.storage.zarr_node import read_node
from volseg.storage.zarr_volume import open_volume
from volseg.storage.zip_folder import inside_zip

if TYPE_CHECKING:
    from collections.abc import Callable

_ZARR = ("zarr.json", ".zgroup", ".zarray")
_DEPTH = 6
"""Folders that an N5 dataset may lie below the root."""


@dataclass(frozen=True)
class BuiltIn:
    """A format.

    Attributes:
        accepts: whether a path or URL names a volume of it.
        opens: opens one from location, types, options and level.
        has_levels: whether it has levels to choose from.
    """

    accepts: Callable[[str], bool]
    opens: Callable[[str, tuple[str, ...], ReadOptions, int | None], Any]
    has_levels: bool = False

    def open(
        self, location: str, dtypes: tuple[str, ...], options: ReadOptions = DEFAULT_OPTIONS, level: int | None = None
    ) -> Any:
        """Open a volume."""
        return self.opens(location, dtypes, options, level)


def _is_webknossos(location: str) -> bool:
    path = Path(location)
    if "://" in location or not path.is_dir():
        return False
    try:
        return webknossos.find_dataset(str(path.absolute())) is not None
    except SourceError:
        return True  # whose metadata cannot be read: opening says why


def _is_precomputed(location: str) -> bool:
    if "://" in location:
        return _remote_format(location) == "precomputed"
    return _is_other_folder(location) and precomputed.has_info(str(Path(location).absolute()))


def _is_n5(location: str) -> bool:
    if "://" in location:
        return _remote_format(location) == "n5"
    path = Path(location).absolute()
    above = [path, *path.parents][:_DEPTH]
    return _is_other_folder(location) and any((folder / n5.METADATA).is_file() for folder in above)


def _is_other_folder(location: str) -> bool:
    """Whether a path is a folder that holds neither a Zarr nor sections."""
    path = Path(location)
    return path.is_dir() and not any((path / name).is_file() for name in _ZARR) and not has_sections(path)


def _remote_format(location: str) -> str:
    """The format of a URL, as its metadata show."""
    try:
        if ".zarr" in location or read_node(location) is not None:
            return "zarr"
        if precomputed.has_info(location):
            return "precomputed"
        return "n5" if n5.has_metadata(location) else "zarr"
    except SourceError:  # which opening it as a Zarr tells
        return "zarr"


def _is_image_stack(location: str) -> bool:
    path = Path(location)
    return "://" not in location and (path.exists() or is_pattern(path)) and not is_hdf5(location) and is_stack(path)


def _is_file(*suffixes: str) -> Callable[[str], bool]:
    def accepts(location: str) -> bool:
        return location.lower().endswith(suffixes) and "://" not in location and Path(location).is_file()

    return accepts


def _is_zarr(location: str) -> bool:
    """True for folders and URLs: only opening shows whether they are Zarr."""
    return not Path(location).is_file() or inside_zip(Path(location)) is not None


BUILT_IN: dict[str, BuiltIn] = {
    "webknossos": BuiltIn(_is_webknossos, webknossos.open_webknossos, has_levels=True),
    "precomputed": BuiltIn(_is_precomputed, precomputed.open_precomputed, has_levels=True),
    "n5": BuiltIn(_is_n5, n5.open_n5, has_levels=True),
    "stack": BuiltIn(_is_image_stack, lambda location, dtypes, options, _: open_unpacked(location, dtypes, options)),
    "hdf5": BuiltIn(is_hdf5, lambda location, dtypes, options, _: open_hdf5(location, dtypes, options)),
    "mrc": BuiltIn(
        _is_file(*mrc.SUFFIXES), lambda location, dtypes, options, _: mrc.open_mrc(location, dtypes, options)
    ),
    "nrrd": BuiltIn(
        _is_file(*nrrd.SUFFIXES), lambda location, dtypes, options, _: nrrd.open_nrrd(location, dtypes, options)
    ),
    "nifti": BuiltIn(
        _is_file(*nifti.SUFFIXES), lambda location, dtypes, options, _: nifti.open_nifti(location, dtypes, options)
    ),
    "zarr": BuiltIn(
        _is_zarr,
        lambda location, dtypes, options, level: open_volume(location, dtypes, level, options.channel, options.axes),
        has_levels=True,
    ),
}
"""Name -> format."""
