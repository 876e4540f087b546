"""Volumes that tensorstore writes, chunk by chunk, with axes x, y, z."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.errors import TargetError
from volseg.storage.marks import Written, digest_of, joint_digest
from volseg.storage.writers.ome_zarr import stored_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from volseg.blocks import Box, Zyx
    from volseg.storage.object_path import TargetPath


_TEMPORARY = ".__lock"


@dataclass(frozen=True)
class TensorStoreWriter:
    """Writes whole chunks.

    Attributes:
        path: of the volume.
        store: the open volume, with axes (x, y, z) that begin at 0.
        chunk: voxels of a file (z, y, x).
        file: path of the file of a chunk, from the box of its voxels and its number along (z, y, x).
    """

    pyramid = None

    path: Path
    store: Any
    chunk: Zyx
    file: Callable[[Box, Zyx], Path]

    def write(self, box: Box, voxels: NDArray[Any], check: Callable[[], object]) -> Written:
        check()
        try:
            self._part(box).write(voxels.transpose(2, 1, 0)).result()
            contents = [file.read_bytes() for file in self._files(box)]
        except (OSError, ValueError) as error:  # tensorstore has no others
            raise TargetError(f"cannot write {box} of {self.path}: {error}") from error
        return Written(
            digest_of(np.ascontiguousarray(voxels).data),
            sum(map(len, contents)),
            joint_digest(digest_of(content) for content in contents),
        )

    def read(self, box: Box) -> NDArray[Any]:
        voxels: NDArray[Any] = np.asarray(self._part(box).read().result())
        return voxels.transpose(2, 1, 0)

    def stored(self, box: Box) -> int:
        return stored_bytes(self._files(box))

    def folders(self, box: Box) -> set[TargetPath]:
        return {file.parent for file in self._files(box)}

    def close(self) -> None:
        """Delete temporary files of processes that were killed."""
        for file in self.path.rglob(f"*{_TEMPORARY}"):
            file.unlink(missing_ok=True)

    def _part(self, box: Box) -> Any:
        z, y, x = box.slices
        return self.store[x, y, z]

    def _files(self, box: Box) -> list[Path]:
        numbers = product(*(range(a // c, -(-b // c)) for a, b, c in zip(box.start, box.stop, self.chunk, strict=True)))
        return [self.file(box, (z, y, x)) for z, y, x in numbers]


def open_tensorstore(spec: dict[str, Any], path: Path, **options: Any) -> Any:
    """Open or create a volume of a folder; voxels of zero are stored too, so that a chunk that is lost shows.

    Raises:
        TargetError: it cannot be opened.
    """
    import tensorstore  # noqa: PLC0415 - an extra

    store = {"driver": "file", "path": f"{path}{os.sep}", "file_io_sync": True}
    try:
        return tensorstore.open(
            {**spec, "kvstore": store, "store_data_equal_to_fill_value": True, "recheck_cached_data": "open"}, **options
        ).result()
    except (OSError, ValueError) as error:
        raise TargetError(f"cannot open {path}: {error}") from error
