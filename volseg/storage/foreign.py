"""Formats that volseg does not read, so that a refusal names the format and a way out."""

from __future__ import annotations

from pathlib import Path

from volseg.storage.zarr_store import open_store, read_json

_FILES = {
    ".gz": "a compressed file", ".mat": "MATLAB", ".npy": "NumPy", ".dm3": "Gatan DM", ".dm4": "Gatan DM",
    ".czi": "CZI", ".nd2": "ND2", ".lif": "LIF", ".ims": "Imaris", ".hdr": "Analyze or NIfTI with two files",
}  # fmt: skip
_REMEDIES = {
    "a compressed file": "decompress it",
    "Analyze or NIfTI with two files": "save it as one .nii file",
    "Imaris": "convert it to OME-Zarr, such as with bioformats2raw",
    "CZI": "convert it to OME-Zarr, such as with bioformats2raw",
    "ND2": "convert it to OME-Zarr, such as with bioformats2raw",
    "LIF": "convert it to OME-Zarr, such as with bioformats2raw",
    "a WKW magnification": "name its layer, below the folder with datasource-properties.json",
}
_DEFAULT_REMEDY = "save it as TIFF, HDF5 or Zarr with axes z, y, x"
_MARKERS = {"header.wkw": "a WKW magnification"}


def foreign_format(location: str) -> str | None:
    """The refusal of a volume in another format; None if it is not known.

    Args:
        location: a path or a URL of no format that volseg reads.
    """
    path = Path(location)
    if "://" not in location and path.is_file():
        name = _FILES.get(path.suffix.lower())
    else:
        name = next((name for marker, name in _MARKERS.items() if _has(location, marker)), None)
    if name is None:
        return None
    return f"{location} is {name}, which volseg does not read; {_REMEDIES.get(name, _DEFAULT_REMEDY)}"


def _has(location: str, marker: str) -> bool:
    if "://" not in location:
        return (Path(location) / marker).is_file()
    try:
        return read_json(open_store(location), marker) is not None
    except Exception:  # each store raises errors of its own; no answer is no format
        return False
