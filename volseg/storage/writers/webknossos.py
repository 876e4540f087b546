"""A webknossos dataset is written: one layer of Zarr 3 with axes c, x, y, z, and datasource-properties.json."""

from __future__ import annotations

import json
import shutil
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.codecs import TransposeCodec, ZstdCodec

from volseg.blocks import Box, Zyx, to_zyx
from volseg.errors import ConfigError, TargetError
from volseg.storage.marks import Written, digest_of, joint_digest
from volseg.storage.shards import ShardFiles, rename_shard
from volseg.storage.writers.base import LABEL_TYPES, Layout, LayoutRequest, refuse_option, refuse_type, whole_voxels
from volseg.storage.writers.chunks import default_shard
from volseg.storage.writers.ome_zarr import stored_bytes
from volseg.storage.zarr_array import open_array

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from volseg.storage.conversion_record import OutputEntry
    from volseg.storage.object_path import TargetPath

_TYPES = ("uint8", "uint16", "uint32", "uint64", "int16", "int32", "int64", "float32")
_ELEMENTS = {"float32": "float"}
_CHUNK = (32, 32, 32)
_MAG = "1"
_PARTIALS = ".partial"


class WebknossosWriter:
    """Writes whole shards; voxels of a shard outside the volume are 0."""

    pyramid = None

    def __init__(self, path: Path, output: OutputEntry) -> None:
        self._path = path / layer_name(output) / _MAG
        self._shape, self._shard = output.grid.shape, output.shard or output.chunk
        self._array = zarr.open_array(self._path, mode="r+").with_config({"write_empty_chunks": True})
        self._read = open_array(str(self._path))
        self._shards = ShardFiles(self._array, self._path / _PARTIALS)

    def write(self, box: Box, voxels: NDArray[Any], check: Callable[[], object]) -> Written:
        partials: dict[Path, Path] = {}
        contents = []
        try:
            for number in self._numbers(box):
                partial = self._shards.write(self._whole(number, box, voxels))
                partials[partial] = self._file(number)
                contents.append(partial.read_bytes())
            check()
            for partial, path in partials.items():
                rename_shard(partial, path)
        except TargetError:
            raise
        except OSError as error:
            raise TargetError(f"cannot write {box} of {self._path}: {error}") from error
        finally:
            for partial in partials:
                partial.unlink(missing_ok=True)
        files = joint_digest(digest_of(content) for content in contents)
        return Written(digest_of(np.ascontiguousarray(voxels).data), sum(map(len, contents)), files)

    def read(self, box: Box) -> NDArray[Any]:
        z, y, x = box.slices
        voxels: NDArray[Any] = np.asarray(self._read[0, x, y, z])
        return voxels.transpose(2, 1, 0)

    def stored(self, box: Box) -> int:
        return stored_bytes([self._file(number) for number in self._numbers(box)])

    def folders(self, box: Box) -> set[TargetPath]:
        return {self._file(number).parent for number in self._numbers(box)}

    def close(self) -> None:
        shutil.rmtree(self._shards.folder, ignore_errors=True)

    def _numbers(self, box: Box) -> list[Zyx]:
        axes = [range(a // s, -(-b // s)) for a, b, s in zip(box.start, box.stop, self._shard, strict=True)]
        return [(z, y, x) for z, y, x in product(*axes)]

    def _file(self, number: Zyx) -> Path:
        z, y, x = number
        return self._path / str(self._array.metadata.encode_chunk_key((0, x, y, z)))

    def _whole(self, number: Zyx, box: Box, voxels: NDArray[Any]) -> NDArray[Any]:
        """The voxels of a shard inside the array, (1, x, y, z), 0 where the box has none."""
        start = to_zyx(n * s for n, s in zip(number, self._shard, strict=True))
        shard = Box(start, start).grow((0, 0, 0), self._shard).intersection(Box.of_shape(self._shape))
        inside = shard.intersection(box)
        part = voxels[inside.relative_to(box.start).slices]
        if inside != shard:
            whole = np.zeros(shard.shape, voxels.dtype)
            whole[inside.relative_to(shard.start).slices] = part
            part = whole
        return np.ascontiguousarray(part.transpose(2, 1, 0))[None]


class WebknossosFormat:
    """Datasets of webknossos with one layer, as a folder."""

    extra = ""

    def layout(self, request: LayoutRequest) -> Layout:
        refuse_option("webknossos", {"--no-shards": not request.sharded})
        refuse_type("webknossos", request.dtype, _TYPES)
        origin, place, notes = whole_voxels(request.place, "webknossos")
        if min(origin) < 0:
            raise ConfigError(
                f"--format webknossos has no place below 0, and the volume has {request.place}; choose another --format"
            )
        chunk = request.chunk or _CHUNK
        item = np.dtype(request.dtype).itemsize
        end = to_zyx(n + o for n, o in zip(request.shape, origin, strict=True))
        shard = request.shard or default_shard(chunk, end, item)
        if any(s % c for s, c in zip(shard, chunk, strict=True)):
            raise ConfigError(
                f"--shard {shard} is not made of whole chunks {chunk}; choose a multiple, or leave it out"
            )
        return Layout(chunk, shard, place, origin, notes=notes)

    def create(self, path: Path, output: OutputEntry, name: str, attributes: dict[str, Any]) -> None:
        layer, end = layer_name(output), output.grid.shape
        shard = output.shard or output.chunk
        try:
            root = zarr.open_group(path, mode="w-", zarr_format=3)
            root.create_group(layer).create_array(
                _MAG,
                shape=(1, *end[::-1]),
                shards=(1, *shard[::-1]),
                chunks=(1, *output.chunk[::-1]),
                dtype=output.dtype,
                fill_value=0,
                filters=[TransposeCodec(order=(3, 2, 1, 0))],
                compressors=[ZstdCodec(level=3, checksum=True)],
                dimension_names=("c", "x", "y", "z"),
                config={"write_empty_chunks": True},
            )
            (path / "datasource-properties.json").write_text(json.dumps(_properties(name, layer, output), indent=4))
        except OSError as error:
            raise TargetError(f"cannot create {path}: {error.strerror or error}; choose a writable folder") from error

    def open(self, path: Path, output: OutputEntry) -> WebknossosWriter:
        return WebknossosWriter(path, output)

    def owns(self, path: Path) -> bool:
        return (path / "datasource-properties.json").is_file()


def layer_name(output: OutputEntry) -> str:
    """Name of the layer: of grey values or of labels."""
    return "segmentation" if output.dtype in LABEL_TYPES else "color"


def _properties(name: str, layer: str, output: OutputEntry) -> dict[str, Any]:
    """The content of datasource-properties.json."""
    depth, height, width = output.shape
    mag = {"mag": [1, 1, 1], "path": f"./{layer}/{_MAG}", "axisOrder": {"c": 0, "x": 1, "y": 2, "z": 3}}
    return {
        "id": {"name": name, "team": ""},
        "scale": {"factor": list(output.scale[::-1]), "unit": "nanometer"},
        "dataLayers": [
            {
                "name": layer,
                "category": layer,
                "boundingBox": {"topLeft": output.origin[::-1], "width": width, "height": height, "depth": depth},
                "dataFormat": "zarr3",
                "mags": [mag],
                "numChannels": 1,
                "elementClass": _ELEMENTS.get(output.dtype, output.dtype),
            }
        ],
        "version": 1,
    }


FORMAT = WebknossosFormat()
