"""Stores of Zarr data: a folder, or a prefix of an object store or web server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
import obstore.store
from zarr.storage import LocalStore, ObjectStore

from volseg.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME_A_ZARR = "name a Zarr array or an OME-Zarr group, or create one with: volseg convert"


def open_store(location: str) -> LocalStore | ObjectStore[Any]:
    """Open the store of an array or a group, read-only.

    Args:
        location: a path or a URL (http, https, s3, gs, az).

    Raises:
        SourceError: the path does not exist or is a file, or the URL is not supported.
    """
    scheme, separator, _ = location.partition("://")
    if separator:
        try:
            options: Any = {"client_options": {"allow_http": True}} if scheme == "http" else {}
            return ObjectStore(obstore.store.from_url(location.rstrip("/"), **options), read_only=True)
        except Exception as error:  # obstore's own errors have no public root
            reason = str(error).partition("Debug source:")[0]
            raise SourceError(f"cannot open {location}: {reason}; check the URL") from error
    path = Path(location)
    if not path.exists():
        raise SourceError(f"source {path} does not exist; check the path, or the mount")
    if not path.is_dir():
        raise SourceError(f"{path} is a file, not a Zarr; {NAME_A_ZARR}")
    return LocalStore(path, read_only=True)


def read_json(store: LocalStore | ObjectStore[Any], key: str) -> Mapping[str, Any] | None:
    """Read a JSON document of a store; None if there is no such key."""
    try:
        text = (store.root / key).read_bytes() if isinstance(store, LocalStore) else _get(store, key)
    except FileNotFoundError:
        return None
    document: Mapping[str, Any] = json.loads(text)
    return document


def _get(store: ObjectStore[Any], key: str) -> bytes:
    return bytes(obstore.get(store.store, key).bytes())
