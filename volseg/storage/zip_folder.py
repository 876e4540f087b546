"""Zarr data in a zip file, read-only."""

from __future__ import annotations

import weakref
import zipfile
from functools import cached_property
from typing import TYPE_CHECKING

from zarr.storage import ZipStore

from volseg.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

SUFFIX = ".zip"


class ZipFolder(ZipStore):
    """The entries of a zip file below a folder in it.

    Args:
        path: of the file.
        prefix: of the folder, with a slash at its end; empty for the whole file.

    Raises:
        SourceError: it is no zip file.
    """

    def __init__(self, path: Path, prefix: str = "") -> None:
        super().__init__(path, mode="r", read_only=True)
        self.prefix = prefix
        try:
            self._sync_open()
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
            raise SourceError(f"{path} cannot be read as a zip file: {error}; copy it again") from error
        weakref.finalize(self, self._zf.close)

    @cached_property
    def keys(self) -> frozenset[str]:
        """Names of the files below the folder."""
        names = (info.filename for info in self._zf.infolist() if not info.is_dir())
        return frozenset(name[len(self.prefix) :] for name in names if name.startswith(self.prefix))

    def read(self, key: str, most: int) -> bytes | None:
        """The content of a file; None if there is none.

        Raises:
            ValueError: it is larger than `most` bytes.
        """
        if key not in self.keys:
            return None
        with self._lock, self._zf.open(self.prefix + key) as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise ValueError(f"{key} has more than {most} bytes")
        return content

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Bytes of a key; None if it does not exist."""
        return await super().get(self.prefix + key, prototype, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Bytes of parts of keys."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        """Whether there is a key."""
        return key in self.keys

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names in a folder."""
        start = f"{prefix.rstrip('/')}/" if prefix.rstrip("/") else ""
        for name in {key[len(start) :].partition("/")[0] for key in self.keys if key.startswith(start)}:
            yield name


def inside_zip(path: Path) -> tuple[Path, str] | None:
    """Return the zip file that a path is, or leads into, and the folder in it; None if it is none."""
    if SUFFIX not in str(path).lower():
        return None
    file = next((one for one in (path, *path.parents) if one.suffix.lower() == SUFFIX and one.is_file()), None)
    if file is None:
        return None
    inside = "" if file == path else f"{path.relative_to(file).as_posix()}/"
    return file, inside
