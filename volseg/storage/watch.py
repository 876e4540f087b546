"""Whether a source is still there, as it was opened: looked at before absence is taken for data."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

from zarr.storage import LocalStore

from volseg.errors import SourceError, SourceLostError
from volseg.storage.object_client import reason_of
from volseg.storage.zarr_store import read_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from volseg.storage.zarr_store import RemoteStore
    from volseg.storage.zip_folder import ZipFolder

_SECONDS = 2.0
"""Least time between two looks at a server, or at the files of a stack, by one process."""
_METADATA = ("zarr.json", ".zarray")
_WAY_OUT = "check the path, or the mount, then rerun with --resume"


class Watch(Protocol):
    """Looks whether a source is still as it was opened."""

    def confirm(self) -> None:
        """Refuse a source that is gone or has changed."""
        ...


class Watched:
    """A source that may have a watch."""

    _watch: Watch | None

    def confirm(self) -> None:
        """Refuse a source that is gone or has changed.

        Raises:
            SourceError: it is or has.
        """
        if self._watch is not None:
            self._watch.confirm()


class MetadataWatch:
    """Looks at the metadata of an array again.

    Args:
        store: of the array.
        location: for messages.
        keys: that the metadata may have, by default those of a Zarr array.
    """

    def __init__(
        self, store: LocalStore | RemoteStore | ZipFolder, location: str, keys: tuple[str, ...] = _METADATA
    ) -> None:
        self._store, self._location, self._keys = store, location, keys
        self._opened = self._read()
        self._pause = _Pause(0.0 if isinstance(store, LocalStore) else _SECONDS)

    def confirm(self) -> None:
        """Compare the metadata with those at the opening; a server is asked once in two seconds at most.

        Raises:
            SourceLostError: they are gone, or have changed.
            SourceError: they cannot be read.
        """
        if not self._pause.is_over():
            return
        try:
            found = self._read()
        except Exception as error:  # each store raises errors of its own
            raise SourceError(f"cannot read the metadata of {self._location}: {reason_of(error)}") from error
        if found != self._opened:
            raise SourceLostError(f"source {self._location} {'has changed' if found else 'is gone'}; {_WAY_OUT}")
        self._pause.begin()

    def _read(self) -> bytes | None:
        found = (read_bytes(self._store, key) for key in self._keys)
        return next((content for content in found if content is not None), None)


class FileWatch:
    """Looks at the sizes and times of files again.

    Args:
        files: of the source.
        location: for messages.
    """

    def __init__(self, files: Sequence[Path], location: str) -> None:
        self._files, self._location = files, location
        self._pause = _Pause(_SECONDS if len(files) > 1 else 0.0)
        self.states = self._read()

    def confirm(self, *, at_once: bool = False) -> None:
        """Compare sizes and times with those at the opening; many files at most once in two seconds.

        Raises:
            SourceLostError: a file is gone or has changed.
        """
        if not (at_once or self._pause.is_over()):
            return
        try:
            found = self._read()
        except OSError as error:
            raise SourceLostError(f"source {self._location} is gone: {error}; {_WAY_OUT}") from error
        if found != self.states:
            raise SourceLostError(f"source {self._location} has changed; {_WAY_OUT}")
        self._pause.begin()

    def _read(self) -> list[tuple[str, int, int]]:
        return [(file.name, (status := file.stat()).st_size, status.st_mtime_ns) for file in self._files]


class _Pause:
    """Time after a look in which its result still counts."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._until, self._lock = seconds, 0.0, threading.Lock()

    def is_over(self) -> bool:
        with self._lock:
            return time.monotonic() >= self._until

    def begin(self) -> None:
        with self._lock:
            self._until = time.monotonic() + self._seconds
