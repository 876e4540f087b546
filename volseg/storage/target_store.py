"""Where targets in object stores live: objects that are put whole, and conditions on what they replace."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from volseg.errors import TargetError
from volseg.storage.object_client import reason_of, writing_client
from volseg.storage.repeats import repeated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_ROUNDS = 5
"""Looks at an object that changes while it is written."""
Tag = tuple[str | None, str | None]
"""Names one version of an object."""


class Entry(NamedTuple):
    """An object: its key, its bytes, and when the store's clock says that it was written, in seconds since 1970."""

    key: str
    size: int
    modified: float


class Stored(NamedTuple):
    """The content of an object, the tag of its version, and when it was written."""

    content: bytes
    tag: Tag
    modified: float


class TargetStore(Protocol):
    """A bucket. All methods raise TargetError if it does not answer, or refuses."""

    def read(self, key: str) -> Stored | None:
        """An object; None if there is none."""

    def head(self, key: str) -> Entry | None:
        """Size and time of an object; None if there is none."""

    def put(self, key: str, content: bytes) -> None:
        """Write an object, whole or not at all."""

    def put_over(self, key: str, content: bytes, check: Callable[[], object]) -> None:
        """Write an object over what this call finds: the put fails if it lands later, when that is another one.

        Args:
            key: of the object, at first expected not to be there.
            content: to write.
            check: called before each put.
        """

    def create(self, key: str, content: bytes) -> Tag | None:
        """Write an object that does not exist yet; None if it does, with another content."""

    def replace(self, key: str, content: bytes, tag: Tag) -> Tag | None:
        """Write the next version of an object; None if the tag is not that of its present version."""

    def below(self, folder: str) -> Iterator[Entry]:
        """The objects below a key."""

    def children(self, folder: str) -> tuple[list[str], list[Entry]]:
        """Keys of the folders directly below a key, and the objects there."""

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, those that are not there included."""


class BucketStore:
    """A bucket, through obstore."""

    def __init__(self, root: str, client: Any) -> None:
        self._root, self._client = root, client

    def read(self, key: str) -> Stored | None:
        try:
            with self._said("read", key):
                return repeated(lambda: self._read(key))
        except FileNotFoundError:
            return None

    def _read(self, key: str) -> Stored:
        answer = obstore.get(self._client, key)
        content, meta = bytes(answer.bytes()), answer.meta
        return Stored(content, (meta.get("e_tag"), meta.get("version")), meta["last_modified"].timestamp())

    def head(self, key: str) -> Entry | None:
        try:
            with self._said("read", key):
                return _entry(repeated(lambda: obstore.head(self._client, key)))
        except FileNotFoundError:
            return None

    def put(self, key: str, content: bytes) -> None:
        with self._said("write", key, missing="there is no such bucket"):
            repeated(lambda: obstore.put(self._client, key, content, use_multipart=False))

    def put_over(self, key: str, content: bytes, check: Callable[[], object]) -> None:
        found: Stored | None = None
        for _ in range(_ROUNDS):
            check()
            if (self.create(key, content) if found is None else self.replace(key, content, found.tag)) is not None:
                return
            found = self.read(key)
            if found is not None and found.content == content:
                return
        raise TargetError(f"{self._root}/{key} changes while it is written; see that one run alone writes there")

    def create(self, key: str, content: bytes) -> Tag | None:
        return self._put_if(key, content, "create")

    def replace(self, key: str, content: bytes, tag: Tag) -> Tag | None:
        return self._put_if(
            key,
            content,
            {name: value for name, value in zip(("e_tag", "version"), tag, strict=True) if value is not None},
        )

    def _put_if(self, key: str, content: bytes, condition: Any) -> Tag | None:
        """Write on a condition; a repeat of a write whose answer was lost fails on its own object."""
        try:
            with self._said("write", key, missing="there is no such bucket"):
                result = repeated(lambda: obstore.put(self._client, key, content, mode=condition))
                return result["e_tag"], result["version"]
        except (AlreadyExistsError, PreconditionError):
            found = self.read(key)
        return found.tag if found is not None and found.content == content else None

    def below(self, folder: str) -> Iterator[Entry]:
        with self._said("list", folder):
            listing = _Listing(self._client, folder)
            while batch := repeated(listing.step):
                yield from map(_entry, batch)

    def children(self, folder: str) -> tuple[list[str], list[Entry]]:
        with self._said("list", folder):
            found = repeated(lambda: obstore.list_with_delimiter(self._client, prefix=folder or None))
            return list(found["common_prefixes"]), [_entry(meta) for meta in found["objects"]]

    def delete(self, keys: Sequence[str]) -> None:
        with self._said("delete", keys[0] if keys else ""):
            try:
                repeated(lambda: obstore.delete(self._client, list(keys)))
            except FileNotFoundError:
                for key in keys:
                    with suppress(FileNotFoundError):
                        repeated(partial(obstore.delete, self._client, key))

    @contextmanager
    def _said(self, action: str, key: str, missing: str = "") -> Iterator[None]:
        """Raise TargetError for errors other than that an object is missing, or a condition does not hold."""
        try:
            yield
        except (AlreadyExistsError, PreconditionError, TargetError):
            raise
        except FileNotFoundError as error:
            if missing:
                raise TargetError(
                    f"cannot {action} {self._root}/{key}: {missing}; create it, or check the URL"
                ) from error
            raise
        except (BaseError, OSError, ValueError) as error:
            raise TargetError(f"cannot {action} {self._root}/{key}: {reason_of(error)}") from error


class _Listing:
    """A listing that goes on after its last key when it was interrupted."""

    def __init__(self, client: Any, folder: str) -> None:
        self._client, self._folder = client, folder
        self._last: str | None = None
        self._stream: Any = None

    def step(self) -> Sequence[Any]:
        """The next objects; empty at the end."""
        if self._stream is None:
            self._stream = iter(obstore.list(self._client, prefix=self._folder or None, offset=self._last))
        try:
            batch: Sequence[Any] = next(self._stream, [])
        except Exception:
            self._stream = None
            raise
        self._last = batch[-1]["path"] if batch else self._last
        return batch


def _entry(meta: Any) -> Entry:
    return Entry(meta["path"], meta["size"], meta["last_modified"].timestamp())


@lru_cache(maxsize=16)
def target_store(root: str) -> TargetStore:
    """The bucket of a URL without a key, kept for the life of the process.

    Raises:
        TargetError: there are no credentials.
    """
    return BucketStore(root, writing_client(root))
