"""Places in object stores, with the methods of `pathlib.Path` that reading and replacing whole files need."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from volseg.storage.object_client import is_object_url, split_url
from volseg.storage.target_store import Entry, TargetStore, target_store

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """Bytes of an object, and when it was written."""

    st_size: int
    st_mtime: float

    @property
    def st_mtime_ns(self) -> int:
        """In nanoseconds."""
        return int(self.st_mtime * 1e9)


@dataclass(frozen=True)
class ObjectPath:
    """An object, or what lies below a key.

    Attributes:
        root: URL of the bucket.
        key: in it, without slashes at its ends.
    """

    root: str
    key: str
    _listed: Entry | None = field(default=None, compare=False, repr=False)

    @property
    def store(self) -> TargetStore:
        """The bucket."""
        return target_store(self.root)

    @property
    def name(self) -> str:
        """The last part."""
        return self._pure.name

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return self._pure.stem

    @property
    def parent(self) -> ObjectPath:
        """What this lies in."""
        key = str(self._pure.parent)
        return ObjectPath(self.root, "" if key == "." else key)

    @property
    def _pure(self) -> PurePosixPath:
        return PurePosixPath(self.key)

    def __str__(self) -> str:
        return f"{self.root}/{self.key}"

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(self.root, f"{self.key}/{name}".strip("/"))

    def relative_to(self, other: ObjectPath | str) -> PurePosixPath:
        """The part below another place."""
        return PurePosixPath(str(self)).relative_to(PurePosixPath(str(other)))

    def exists(self) -> bool:
        """Whether there is such an object, or any below it."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether there is such an object."""
        return self.store.head(self.key) is not None

    def is_dir(self) -> bool:
        """Whether there are objects below it."""
        return next(iter(self.store.below(self.key)), None) is not None

    def read_bytes(self) -> bytes:
        """The content."""
        found = self.store.read(self.key)
        if found is None:
            raise FileNotFoundError(2, "no such object", str(self))
        return found.content

    def write_bytes(self, content: bytes) -> int:
        """Put the content, whole."""
        self.store.put(self.key, content)
        return len(content)

    def open(self, mode: str = "rb", buffering: int = -1) -> BytesIO:
        """The content, as a file to read."""
        assert mode == "rb"
        return BytesIO(self.read_bytes())

    def stat(self) -> ObjectStat:
        """Size and time."""
        entry = self._listed or self.store.head(self.key)
        if entry is None:
            raise FileNotFoundError(2, "no such object", str(self))
        return ObjectStat(entry.size, entry.modified)

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object."""
        if not missing_ok and not self.is_file():
            raise FileNotFoundError(2, "no such object", str(self))
        self.store.delete([self.key])

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: folders are parts of keys."""

    def glob(self, pattern: str) -> Iterator[ObjectPath]:
        """Objects directly below, by their name."""
        for path in self.files():
            if fnmatchcase(path.name, pattern):
                yield path

    def files(self) -> Iterator[ObjectPath]:
        """Objects directly below."""
        for entry in self.store.children(self.key)[1]:
            yield ObjectPath(self.root, entry.key, entry)

    def entries(self) -> list[tuple[str, bool]]:
        """Names of what is directly below, and whether each is an object; in the order of names."""
        folders, files = self.store.children(self.key)
        names = [(PurePosixPath(key).name, False) for key in folders]
        return sorted(names + [(PurePosixPath(entry.key).name, True) for entry in files])


TargetPath = Path | ObjectPath
"""Where an output lives."""


def target_path(location: str) -> TargetPath:
    """The place of an output: a path, or one in an object store for a URL."""
    return ObjectPath(*split_url(location)) if is_object_url(location) else Path(location)
