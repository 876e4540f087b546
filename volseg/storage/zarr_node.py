"""Metadata of one Zarr 2 or 3 array or group, with what cannot be an array refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from volseg.errors import SourceError
from volseg.storage.axes import named_axes
from volseg.storage.object_client import reason_of
from volseg.storage.zarr_store import open_store, read_json

if TYPE_CHECKING:
    from collections.abc import Mapping

Format: TypeAlias = Literal["zarr2", "zarr3"]
_MAX_SIZE = 1 << 62
"""Positions are 64-bit integers."""
_MAX_TEXT = 80


@dataclass(frozen=True, slots=True)
class ZarrNode:
    """An array or a group.

    Attributes:
        format: the Zarr version.
        attributes: user attributes.
        shape: voxels along each axis; None for a group.
        dtype: name of the data type, such as `uint8`; None for a group.
        dimension_names: names of the axes, empty text for an axis without a name; empty if none is stated.
    """

    format: Format
    attributes: Mapping[str, Any]
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    dimension_names: tuple[str, ...] = ()


def read_node(location: str) -> ZarrNode | None:
    """Read the metadata of a Zarr 2 or 3 array or group; None if there is none.

    Raises:
        SourceError: the location does not exist, or the metadata cannot be read.
    """
    store = open_store(location)
    try:
        if (document := read_json(store, "zarr.json")) is not None:
            return _zarr3_node(document)
        for key in (".zarray", ".zgroup"):
            if (document := read_json(store, key)) is not None:
                return _zarr2_node(document, read_json(store, ".zattrs") or {})
    except ValueError as error:
        raise SourceError(f"cannot read the metadata of {location}: {error}") from error
    except Exception as error:  # each store raises errors of its own
        raise SourceError(f"cannot read the metadata of {location}: {reason_of(error)}") from error
    return None


def _zarr3_node(document: Mapping[str, Any]) -> ZarrNode:
    attributes = _object(document.get("attributes", {}), "attributes")
    if document["node_type"] == "group":
        return ZarrNode("zarr3", attributes)
    grid = _object(_object(document.get("chunk_grid"), "chunk_grid").get("configuration", {}), "chunk_grid")
    shape = _shape(document["shape"], grid.get("chunk_shape"))
    dtype = document["data_type"]
    name = dtype if isinstance(dtype, str) else str(dtype["name"])
    return ZarrNode("zarr3", attributes, shape, name, named_axes(len(shape), document.get("dimension_names")))


def _zarr2_node(document: Mapping[str, Any], attributes: Mapping[str, Any]) -> ZarrNode:
    if "shape" not in document:
        return ZarrNode("zarr2", attributes)
    shape, dtype = _shape(document["shape"], document.get("chunks")), np.dtype(document["dtype"]).name
    return ZarrNode("zarr2", attributes, shape, dtype, named_axes(len(shape), attributes.get("_ARRAY_DIMENSIONS")))


def _object(value: Any, what: str) -> Mapping[str, Any]:
    """A JSON object; null is an empty one."""
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{what} should be a JSON object, and is of type {type(value).__name__}")
    return value or {}


def _shape(shape: Any, chunks: Any) -> tuple[int, ...]:
    """The shape of an array, if it can be indexed in such chunks; None for chunks of another kind than regular ones.

    Raises:
        ValueError: it cannot.
    """
    if not _are_sizes(shape, 0):
        raise ValueError(f"its shape {_text(shape)} is not a list of sizes")
    if chunks is not None and not (_are_sizes(chunks, 1) and len(chunks) == len(shape)):
        raise ValueError(f"its chunks {_text(chunks)} are not a size for each axis of the shape {_text(shape)}")
    return tuple(shape)


def _are_sizes(values: Any, least: int) -> bool:
    return isinstance(values, list) and all(type(n) is int and least <= n <= _MAX_SIZE for n in values)


def _text(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]} .."
