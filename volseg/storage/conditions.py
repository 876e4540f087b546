"""Whether an object store keeps the conditions of writes, on which the lease of a target rests."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import uuid4

from volseg.errors import TargetError

if TYPE_CHECKING:
    from volseg.storage.object_path import ObjectPath

TEST = "conditions-"
"""Begins the name of the object of a test."""


def refuse_unconditional(folder: ObjectPath) -> None:
    """Refuse a store that writes whatever the condition says.

    Raises:
        TargetError: it does, or cannot be written.
    """
    path = folder / f"{TEST}{uuid4().hex}"
    store, key = path.store, path.key
    try:
        first = store.create(key, b"1")
        honours = first is not None and store.create(key, b"2") is None
        if honours and first is not None:
            honours = store.replace(key, b"3", first) is not None and store.replace(key, b"4", first) is None
    finally:
        with suppress(TargetError):
            store.delete([key])
    if not honours:
        raise TargetError(
            f"{folder.root} ignores conditions on writes (If-None-Match, If-Match), so that two runs could write into "
            "one target; write to a local path and copy it, or use a store that keeps them"
        )
