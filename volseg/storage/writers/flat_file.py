"""Files in which all voxels lie uncompressed, one after another: sections are written at their place, in any order."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.errors import TargetError
from volseg.storage.marks import Written, digest_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from volseg.blocks import Box, Zyx
    from volseg.storage.object_path import TargetPath


@dataclass(frozen=True)
class FlatFileWriter:
    """Writes whole sections into a file that `create` has made in its full size.

    Attributes:
        path: of the file.
        offset: of the first voxel, in bytes.
        shape: of the volume (z, y, x).
        dtype: of a voxel as stored, with its byte order.
    """

    pyramid = None

    path: Path
    offset: int
    shape: Zyx
    dtype: np.dtype[Any]

    def write(self, box: Box, voxels: NDArray[Any], check: Callable[[], object]) -> Written:
        content = np.ascontiguousarray(voxels, self.dtype).data.cast("B")
        check()
        try:
            file = os.open(self.path, os.O_WRONLY)
            try:
                at = self._offset(box.start[0])
                while content:
                    done = os.pwrite(file, content, at)
                    content, at = content[done:], at + done
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise TargetError(f"cannot write {box} of {self.path}: {error.strerror or error}") from error
        digest = digest_of(np.ascontiguousarray(voxels).data)
        return Written(digest, box.voxels * self.dtype.itemsize, digest)

    def read(self, box: Box) -> NDArray[Any]:
        shape = (box.stop[0] - box.start[0], *self.shape[1:])
        with self.path.open("rb") as file:
            file.seek(self._offset(box.start[0]))
            stored = np.fromfile(file, self.dtype, prod(shape)).reshape(shape)
        return stored.astype(self.dtype.newbyteorder("="), copy=False)

    def stored(self, box: Box) -> int:
        is_whole = self.path.exists() and self.path.stat().st_size >= self._offset(self.shape[0])
        return box.voxels * self.dtype.itemsize if is_whole else 0

    def folders(self, box: Box) -> set[TargetPath]:
        return {self.path.parent}

    def close(self) -> None:
        """Do nothing: there is nothing but the file."""

    def _offset(self, section: int) -> int:
        return self.offset + section * self.shape[1] * self.shape[2] * self.dtype.itemsize
