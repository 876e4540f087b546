"""N5 is written: one dataset of gzip chunks with axes x, y, z, and its place as tensorstore and viewers state it."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from volseg.storage.conversion_record import CONVERSION_KEY
from volseg.storage.writers.base import Layout, LayoutRequest, refuse_option, refuse_type
from volseg.storage.writers.chunks import default_chunk
from volseg.storage.writers.tensorstores import TensorStoreWriter, open_tensorstore

if TYPE_CHECKING:
    from pathlib import Path

    from volseg.blocks import Box, Zyx
    from volseg.storage.conversion_record import OutputEntry

_TYPES = ("uint8", "uint16", "uint32", "uint64", "int16", "int32", "int64", "float32")
_LEVEL = 3


class N5Format:
    """N5 datasets."""

    extra = "tensorstore"

    def layout(self, request: LayoutRequest) -> Layout:
        refuse_option("n5", {"--shard": request.shard})
        refuse_type("n5", request.dtype, _TYPES)
        return Layout(request.chunk or default_chunk(request.place.scale), None, request.place)

    def create(self, path: Path, output: OutputEntry, name: str, attributes: dict[str, Any]) -> None:
        scale, start = ([float(v) for v in values[::-1]] for values in (output.scale, output.translation))
        metadata = {
            "dimensions": output.shape[::-1],
            "blockSize": output.chunk[::-1],
            "dataType": output.dtype,
            "compression": {"type": "gzip", "level": _LEVEL},
            "axes": ["x", "y", "z"],
            "resolution": scale,
            "units": ["nm"] * 3,
        }
        open_tensorstore({"driver": "n5", "metadata": metadata}, path, create=True)
        file = path / "attributes.json"
        document = json.loads(file.read_bytes())
        document |= {"n5": "2.0.0", "name": name, "offset": start, CONVERSION_KEY: attributes}
        document["transform"] = {  # in C order, as COSEM has it
            "axes": ["z", "y", "x"],
            "scale": scale[::-1],
            "translate": start[::-1],
            "units": ["nm"] * 3,
        }
        file.write_text(json.dumps(document, indent=2))

    def open(self, path: Path, output: OutputEntry) -> TensorStoreWriter:
        store = open_tensorstore({"driver": "n5"}, path, open=True)
        return TensorStoreWriter(path, store, output.chunk, partial(_file, path))

    def owns(self, path: Path) -> bool:
        return (path / "attributes.json").is_file()


def _file(path: Path, box: Box, number: Zyx) -> Path:
    z, y, x = number
    return path / str(x) / str(y) / str(z)


FORMAT = N5Format()
