"""NIfTI files (.nii, .nii.gz)."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.errors import SourceError
from volseg.storage.axes import DEFAULT_OPTIONS, ReadOptions
from volseg.storage.extras import require
from volseg.storage.formats.flat_file import FlatFile, axis_aligned, open_flat, shortest_decimal
from volseg.storage.zarr_volume import GREY

if TYPE_CHECKING:
    from volseg.storage.array_volume import ArrayVolume

SUFFIXES = (".nii", ".nii.gz")
_NAMES = ("x", "y", "z", "t", "c", "c", "c")
_UNITS = {"meter": "meter", "mm": "mm", "micron": "micron"}


def open_nifti(location: str, dtypes: tuple[str, ...] = GREY, options: ReadOptions = DEFAULT_OPTIONS) -> ArrayVolume:
    """Open a NIfTI file; no voxel is read. Values with a slope or an intercept are read as float32.

    Raises:
        SourceError: it cannot be read, or nibabel is not installed.
        ConfigError: options that do not fit it.
    """
    path = Path(location).absolute()
    nibabel = require("nibabel", "formats", str(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = nibabel.load(path)
        if not isinstance(image, nibabel.Nifti1Image):  # NIfTI 2 is one, too
            raise TypeError(f"it is {type(image).__name__}")
        flat = _flat_file(path, image)
    except Exception as error:  # nibabel raises errors of many kinds
        raise SourceError(f"{path} cannot be read as NIfTI: {error}; copy it again, or save it anew") from error
    return open_flat(path, flat, dtypes, options, open_nifti)


def _flat_file(path: Path, image: Any) -> FlatFile:
    header, array = image.header, image.dataobj
    shape = tuple(int(n) for n in array.shape)
    names = list(_NAMES[: len(shape)])
    units = [_UNITS.get(header.get_xyzt_units()[0])] * 3
    sizes, starts, note = [shortest_decimal(size) for size in header.get_zooms()[:3]], [0.0] * 3, ""
    if int(header["sform_code"]) or int(header["qform_code"]):
        affine = np.vectorize(shortest_decimal, otypes=[float])(image.affine)
        sizes, starts, note = axis_aligned(affine[:3, :3].T, affine[:3, 3].tolist(), "affine")
    scaling = (float(array.slope), float(array.inter))
    compressed = path.name.lower().endswith(".gz")
    return FlatFile(
        path,
        0 if compressed else int(array.offset),
        shape[::-1],
        np.dtype(array.dtype),
        tuple(names[::-1]),
        sizes[::-1] if len(sizes) == 3 and min(sizes) > 0 else None,
        starts[::-1],
        units,
        "gzip" if compressed else "",
        int(array.offset) if compressed else 0,
        None if scaling == (1.0, 0.0) else scaling,
        note,
    )
