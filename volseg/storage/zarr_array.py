"""Open arrays whose metadata zarr does not read as they are meant, or whose chunks zarrs does not decode."""

from __future__ import annotations

import re
import sys
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numcodecs.errors import UnknownCodecError  # type: ignore[import-untyped]
from zarr.storage import LocalStore, StorePath

from volseg.errors import SourceError
from volseg.storage.object_client import reason_of
from volseg.storage.zarr_store import open_store, read_json

if TYPE_CHECKING:
    from collections.abc import Mapping

_NATIVE = {"little": "<", "big": ">"}[sys.byteorder]
_IMAGECODECS = "imagecodecs_"
_NESTED_KEY, _FLAT_KEY = re.compile(r"\d+"), re.compile(r"\d+(\.\d+)+")


def open_array(location: str) -> zarr.Array[Any]:
    """Open an array for reading.

    zarrs reads halo boxes faster than zarr, but neither another byte order nor another memory order of Zarr 2.

    Raises:
        SourceError: it cannot be opened, or a codec is not installed.
    """
    store = open_store(location)
    document = read_json(store, ".zarray") if read_json(store, "zarr.json") is None else None
    pipeline = {}
    # Behind a URL zarr's own pipeline fetches chunks concurrently without blocking Python; zarrs would block it.
    if isinstance(store, LocalStore) and (document is None or _is_native(document)):
        pipeline = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}
    with warnings.catch_warnings(), zarr.config.set(pipeline):
        # For a codec that it does not support zarrs warns and uses zarr's own pipeline.
        warnings.filterwarnings("ignore", message="Array is unsupported by ZarrsCodecPipeline")
        try:
            if document is None:
                return zarr.open_array(store=store, mode="r", zarr_format=3)
            _register_codecs(document)
            return zarr.Array.from_dict(StorePath(store), _understood(store, document))
        except UnknownCodecError as error:
            raise SourceError(_codec_message(location, str(error))) from error
        except Exception as error:  # each store and codec raises errors of its own
            raise SourceError(f"cannot open {location}: {reason_of(error)}") from error


def _is_native(document: Mapping[str, Any]) -> bool:
    """Whether a Zarr 2 array is stored in the machine's byte order and in C order."""
    return document.get("order", "C") == "C" and np.dtype(document["dtype"]).byteorder in ("|", "=", _NATIVE)


def _understood(store: Any, document: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of a Zarr 2 array as zarr understands them."""
    dtype = np.dtype(document["dtype"])
    understood = {"attributes": {}, "filters": None, "compressor": None, **document}
    if dtype.itemsize == 1:  # others write <u1, zarr knows |u1 only
        understood["dtype"] = dtype.str
    if document.get("dimension_separator") is None:
        understood["dimension_separator"] = "/" if _is_nested(store, len(document["shape"])) else "."
    return understood


def _is_nested(store: Any, axes: int) -> bool:
    """Whether the chunks of an array lie in folders, as its first one that is found shows."""
    if axes < 2:
        return False
    if not isinstance(store, LocalStore):
        return False
    for path in store.root.iterdir():
        if _FLAT_KEY.fullmatch(path.name):
            return False
        if _NESTED_KEY.fullmatch(path.name) and path.is_dir():
            return True
    return False


def _codecs(document: Mapping[str, Any]) -> list[str]:
    parts = [document.get("compressor"), *(document.get("filters") or [])]
    return [str(part.get("id")) for part in parts if isinstance(part, dict)]


def _register_codecs(document: Mapping[str, Any]) -> None:
    """Register the codecs of imagecodecs, such as JPEG 2000, with numcodecs if the array needs them."""
    if any(codec.startswith(_IMAGECODECS) for codec in _codecs(document)) and find_spec("imagecodecs"):
        import imagecodecs.numcodecs  # noqa: PLC0415 - an extra

        imagecodecs.numcodecs.register_codecs(verbose=False)


def _codec_message(location: str, text: str) -> str:
    name = re.sub(r"^.*?:\s*|[\"']", "", text)
    extra = name.startswith(_IMAGECODECS) and find_spec("imagecodecs") is None
    remedy = "install it with: pip install 'volseg[convert]'" if extra else "store the array with another codec"
    return f"cannot open {location}: its chunks need the codec {name}, which is not installed; {remedy}"
