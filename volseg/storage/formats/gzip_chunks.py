"""Precomputed chunks in files that cloud-volume has compressed: `0-64_0-64_0-8.gz`, which tensorstore does not read."""

from __future__ import annotations

import gzip
import json
import os
from itertools import product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.errors import SourceError
from volseg.storage.extras import require

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

_SUFFIX = ".gz"
_OTHERS = (".br", ".zstd", ".xz", ".bz2")
_SLACK = 1 << 16
"""Bytes that a chunk may have beyond its voxels."""
_LOOKED_AT = 64


def compressed_suffix(location: str) -> str:
    """What the names of the chunks in a folder end with: `.gz`, or nothing.

    Raises:
        SourceError: chunks are compressed in another way.
    """
    if "://" in location or not Path(location).is_dir():
        return ""
    with os.scandir(location) as entries:
        suffixes = {Path(entry.name).suffix for entry, _ in zip(entries, range(_LOOKED_AT), strict=False)}
    if others := suffixes.intersection(_OTHERS):
        raise SourceError(
            f"{location} holds chunks compressed as {min(others)}, which are not read from files; write it again with "
            "cloud-volume's compress='gzip' or compress=False"
        )
    return _SUFFIX if _SUFFIX in suffixes else ""


class GzipArray:
    """Reads an index through a copy of its chunks in memory, decompressed.

    Args:
        location: folder of the scale.
        info: of the volume.
        number: of the scale.
        name: returns the name of a chunk, uncompressed, from its number along x, y, z, channel.
        chunk: voxels along x, y, z, channel.
    """

    def __init__(
        self,
        location: str,
        info: Mapping[str, Any],
        number: int,
        name: Callable[[tuple[int, ...]], str],
        chunk: tuple[int, ...],
    ) -> None:
        self._folder, self._name, self._chunk = Path(location), name, chunk
        self._info = {**info, "scales": [{**info["scales"][number], "key": "s"}]}
        self._max_bytes = 2 * prod(chunk) * np.dtype(str(info["data_type"]).lower()).itemsize + _SLACK

    def __call__(self, index: tuple[int | slice, ...]) -> NDArray[Any]:
        """Read an index of integers and slices; missing chunks are zero."""
        tensorstore = require("tensorstore", "formats", str(self._folder))
        context = tensorstore.Context()
        memory = tensorstore.KvStore.open("memory://", context=context).result()
        memory["info"] = json.dumps(self._info).encode()
        spans = [(one, one + 1) if isinstance(one, int) else (one.start, one.stop) for one in index]
        for number in product(*(range(a // c, -(-b // c)) for (a, b), c in zip(spans, self._chunk, strict=True))):
            name = self._name(number)
            if (content := self._read(name)) is not None:
                memory[f"s/{name}"] = content
        spec = {"driver": "neuroglancer_precomputed", "kvstore": "memory://"}
        array = tensorstore.open(spec, context=context, open=True, read=True).result()
        return np.asarray(array[tensorstore.d[:].translate_to[0]][index].read().result())

    def _read(self, name: str) -> bytes | None:
        """A chunk; None if there is none, neither compressed nor not."""
        for suffix in (_SUFFIX, ""):
            path = self._folder / f"{name}{suffix}"
            try:
                with gzip.open(path) if suffix else path.open("rb") as file:
                    content = file.read(self._max_bytes + 1)
            except FileNotFoundError:
                continue
            except (OSError, EOFError) as error:
                raise SourceError(f"cannot read {path}: {error}; copy it again") from error
            if len(content) > self._max_bytes:
                raise SourceError(f"{path} holds more than the voxels of a chunk; copy it again")
            return content
        return None
