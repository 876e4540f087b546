"""Stores of Zarr data: a folder, or a prefix of an object store or web server."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
import obstore.store
from obstore.exceptions import PermissionDeniedError
from zarr.storage import LocalStore, ObjectStore

from volseg.errors import SourceError
from volseg.storage.metadata_file import read_metadata
from volseg.storage.object_client import is_object_url, reading_client, reason_of, split_url
from volseg.storage.zip_folder import ZipFolder, inside_zip
from volseg.text import parse_object

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from obstore.store import RetryConfig
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

NAME_A_ZARR = "name a Zarr array or an OME-Zarr group, or create one with: volseg convert"
_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
_missing: ContextVar[set[str] | None] = ContextVar("missing", default=None)
_MAX_BYTES = 64 << 20
_SILENCE = timedelta(seconds=30)
"""A server that sends nothing for so long has stalled."""
_CONNECTION = {"connect_timeout": timedelta(seconds=5), "read_timeout": _SILENCE, "timeout": timedelta(minutes=10)}
_RETRY: RetryConfig = {"max_retries": 10, "retry_timeout": timedelta(seconds=60)}
"""The attempts at a block follow, with longer pauses."""


class RemoteStore(ObjectStore[Any]):
    """An object store or web server, many of which answer 403 (forbidden) for a key that does not exist."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Bytes of a key; None if it does not exist.

        A forbidden chunk counts as missing only if the array's metadata can be read at this moment: else it is the
        permission that is missing, and zeros would be read for voxels.
        """
        content = None
        try:
            content = await super().get(key, prototype, byte_range)
        except PermissionDeniedError:
            if key not in _METADATA and not await self._metadata_is_readable():
                raise
        missing = _missing.get()
        if content is None and missing is not None:
            missing.add(key)
        return content

    async def _metadata_is_readable(self) -> bool:
        for key in ("zarr.json", ".zarray"):
            try:
                await obstore.get_async(self.store, key)
            except (PermissionDeniedError, FileNotFoundError):
                continue
            return True
        return False


def may_list(store: LocalStore | RemoteStore | ZipFolder) -> bool:
    """Whether it makes sense to ask a store for its keys: a web server does not tell them."""
    return isinstance(store, LocalStore | ZipFolder) or not isinstance(store.store, obstore.store.HTTPStore)


@contextmanager
def missing_keys() -> Iterator[set[str]]:
    """Collect the keys that remote stores do not find while this thread reads; zarr's own tasks inherit its context."""
    keys: set[str] = set()
    token = _missing.set(keys)
    try:
        yield keys
    finally:
        _missing.reset(token)


def open_store(location: str) -> LocalStore | RemoteStore | ZipFolder:
    """Open the store of an array or a group, read-only.

    Args:
        location: a path or a URL (http, https, s3, gs, az).

    Raises:
        SourceError: the path does not exist or is a file, or the URL is not supported.
    """
    scheme, separator, _ = location.partition("://")
    if separator:
        try:
            if is_object_url(location):
                return RemoteStore(reading_client(*split_url(location)), read_only=True)
            client: Any = _CONNECTION | ({"allow_http": True} if scheme == "http" else {})
            store = obstore.store.from_url(location.rstrip("/"), client_options=client, retry_config=_RETRY)
            return RemoteStore(store, read_only=True)
        except Exception as error:  # obstore's own errors have no public root
            raise SourceError(f"cannot open {location}: {reason_of(error)}; check the URL") from error
    path = Path(location)
    if (inside := inside_zip(path)) is not None:
        return ZipFolder(*inside)
    try:
        exists, is_folder = path.exists(), path.is_dir()
    except OSError as error:  # such as a name that is too long
        raise SourceError(f"source {path} cannot be read: {error.strerror}; check the path") from error
    if not exists:
        raise SourceError(f"source {path} does not exist; check the path, or the mount")
    if not is_folder:
        raise SourceError(f"{path} is a file, not a Zarr; {NAME_A_ZARR}")
    return LocalStore(path, read_only=True)


def read_json(store: LocalStore | RemoteStore | ZipFolder, key: str) -> Mapping[str, Any] | None:
    """Read a JSON object of a store; None if there is no such key, or the server forbids it.

    Raises:
        ValueError: it is not JSON, another value than an object, or too large.
    """
    text = read_bytes(store, key)
    return None if text is None else parse_object(text, key)


def read_bytes(store: LocalStore | RemoteStore | ZipFolder, key: str) -> bytes | None:
    """Read the content of a key of metadata; None if there is no such key, or the server forbids it.

    Raises:
        ValueError: it is too large for metadata.
    """
    try:
        if isinstance(store, ZipFolder):
            return store.read(key, _MAX_BYTES)
        if isinstance(store, LocalStore):
            _refuse_large((store.root / key).stat().st_size, key)
            return read_metadata(store.root / key)
        answer = obstore.get(store.store, key)
        _refuse_large(answer.meta["size"], key)
        return bytes(answer.bytes())
    except (FileNotFoundError, PermissionDeniedError):
        return None


def is_missing_remote(store: RemoteStore, key: str) -> bool:
    """Whether an object store or a web server lacks a key, or forbids it."""
    try:
        obstore.head(store.store, key)
    except (FileNotFoundError, PermissionDeniedError):
        return True
    return False


def _refuse_large(size: int, key: str) -> None:
    if size > _MAX_BYTES:
        raise ValueError(f"{key} has {size} bytes, more than the {_MAX_BYTES} of any metadata")
