"""The header of a safetensors file: checked against the file's size before a tensor is read; without torch."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, BinaryIO

from volseg.errors import ModelError
from volseg.text import parse_object

if TYPE_CHECKING:
    from pathlib import Path

MAX_PARAMETERS = 1 << 31
"""Of a network, and values of a model file; the largest built-in network has an eighth of them."""
_MAX_HEADER_BYTES = 16 << 20
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def read_header(path: Path, file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    """Read the metadata and the number of values of a safetensors file, and leave the file at its first tensor.

    Args:
        path: of the file, for messages.
        file: at its beginning.
        size: of the file, in bytes.

    Raises:
        ModelError: a pickle, incomplete, or a header that cannot be that of this file; names the tensor.
    """
    length = _header_length(path, file.read(8), size)
    try:
        header = parse_object(file.read(length), "its header")
    except ValueError:
        raise _incomplete(path) from None
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ModelError(f"{path}: __metadata__ of its header should be an object of texts; copy it again")
    tensors = [_tensor(path, name, entry) for name, entry in header.items()]
    spans = sorted((start, stop) for _, start, stop in tensors)
    ends = [0, *(stop for _, stop in spans)]
    if ends != [*(start for start, _ in spans), size - 8 - length]:
        raise _incomplete(path)
    values = sum(prod(shape) for shape, _, _ in tensors)
    if values > MAX_PARAMETERS:
        raise ModelError(f"{path} holds {values} values, and volseg reads models of up to {MAX_PARAMETERS}")
    return metadata, values


def _header_length(path: Path, first: bytes, size: int) -> int:
    """Bytes of the header, from the first 8 of the file."""
    if first.startswith(_PICKLES):
        raise ModelError(
            f"{path} is a pickled PyTorch file, which could run code and is never loaded; "
            "convert its weights with `volseg models import`"
        )
    length = int.from_bytes(first, "little")
    if size < 8 or not 2 <= length <= size - 8:
        raise _incomplete(path)
    if length > _MAX_HEADER_BYTES:
        raise ModelError(f"{path} has a header of {length} bytes, and volseg reads up to {_MAX_HEADER_BYTES}")
    return length


def _incomplete(path: Path) -> ModelError:
    return ModelError(f"{path} is not a complete .safetensors model file; copy it again")


def _tensor(path: Path, name: str, entry: Any) -> tuple[list[int], int, int]:
    """Shape, first byte and end of a tensor."""
    stated: dict[str, Any] = entry if isinstance(entry, dict) else {}
    dtype: Any = stated.get("dtype")
    shape: Any = stated.get("shape")
    offsets: Any = stated.get("data_offsets")
    where = f"{path}: tensor {name:.80}"
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise ModelError(f"{where} has the unknown type {dtype!s:.20}; save it as one of {', '.join(_ITEM_BYTES)}")
    if not _are_sizes(shape):
        raise ModelError(f"{where} has the shape {shape!s:.40}, which is not a list of sizes; copy the file again")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[1] - offsets[0] != prod(shape) * _ITEM_BYTES[dtype]:
        raise ModelError(
            f"{where} has data_offsets {offsets!s:.60} for {dtype} of shape {shape!s:.40}; copy the file again"
        )
    return shape, offsets[0], offsets[1]


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and len(values) < 16 and all(type(n) is int and 0 <= n < 1 << 62 for n in values)
