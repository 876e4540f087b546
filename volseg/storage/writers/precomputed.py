"""Neuroglancer precomputed is written: one scale, a file for each chunk."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from volseg.storage.writers.base import Layout, LayoutRequest, refuse_option, refuse_type, whole_voxels
from volseg.storage.writers.chunks import default_chunk
from volseg.storage.writers.tensorstores import TensorStoreWriter, open_tensorstore

if TYPE_CHECKING:
    from pathlib import Path

    from volseg.blocks import Box, Zyx
    from volseg.storage.conversion_record import OutputEntry

_TYPES = ("uint8", "uint16", "uint32", "uint64", "int16", "int32", "float32")
_SEGMENTATION = ("uint32", "uint64")
_SEGMENT_BLOCK = [8, 8, 8]


class PrecomputedFormat:
    """Neuroglancer precomputed volumes."""

    extra = "tensorstore"

    def layout(self, request: LayoutRequest) -> Layout:
        refuse_option("precomputed", {"--shard": request.shard})
        refuse_type("precomputed", request.dtype, _TYPES)
        _, place, notes = whole_voxels(request.place, "precomputed")
        return Layout(request.chunk or default_chunk(request.place.scale), None, place, notes=notes)

    def create(self, path: Path, output: OutputEntry, name: str, attributes: dict[str, Any]) -> None:
        is_segmentation = output.dtype in _SEGMENTATION
        encoding: dict[str, Any] = {"encoding": "raw"}
        if is_segmentation:
            encoding = {
                "encoding": "compressed_segmentation",
                "compressed_segmentation_block_size": _SEGMENT_BLOCK,
            }
        spec = {
            "driver": "neuroglancer_precomputed",
            "multiscale_metadata": {
                "type": "segmentation" if is_segmentation else "image",
                "data_type": output.dtype,
                "num_channels": 1,
            },
            "scale_metadata": {
                "key": "0",
                "size": output.shape[::-1],
                "resolution": output.scale[::-1],
                "voxel_offset": _offset(output)[::-1],
                "chunk_size": output.chunk[::-1],
                **encoding,
            },
        }
        open_tensorstore(spec, path, create=True)

    def open(self, path: Path, output: OutputEntry) -> TensorStoreWriter:
        import tensorstore  # noqa: PLC0415 - an extra

        store = open_tensorstore({"driver": "neuroglancer_precomputed", "scale_index": 0}, path, open=True)
        store = store[tensorstore.d["channel"][0]][tensorstore.d[:].translate_to[0]]
        return TensorStoreWriter(path, store, output.chunk, partial(_file, path, output))

    def owns(self, path: Path) -> bool:
        try:
            return "scales" in json.loads((path / "info").read_bytes())
        except (OSError, ValueError):
            return False


def _offset(output: OutputEntry) -> Zyx:
    """Translation in voxels, which `layout` has made whole."""
    z, y, x = (round(start) for start in output.place.translation_voxels)
    return z, y, x


def _file(path: Path, output: OutputEntry, box: Box, number: Zyx) -> Path:
    spans = [
        f"{n * c + o}-{min((n + 1) * c, size) + o}"
        for n, c, size, o in zip(number, output.chunk, output.shape, _offset(output), strict=True)
    ]
    return path / "0" / "_".join(spans[::-1])


FORMAT = PrecomputedFormat()
