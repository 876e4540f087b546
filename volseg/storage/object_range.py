"""A part of an object, for a program that serves objects to others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import obstore
from obstore.exceptions import BaseError, NotModifiedError

from volseg.errors import SourceError
from volseg.storage.object_client import reading_client, reason_of

if TYPE_CHECKING:
    from volseg.storage.object_path import ObjectPath


class ObjectRange(NamedTuple):
    """Bytes of an object.

    Attributes:
        content: the bytes; empty if only the object was asked for, or its tag is known.
        start: of them in the object.
        size: of the object.
        tag: of its version; empty if the store has none.
        is_known: whether the tag is that which the caller knows.
    """

    content: bytes
    start: int
    size: int
    tag: str
    is_known: bool = False


async def read_object_range(
    path: ObjectPath, start: int | None, stop: int | None, known: str | None = None, *, body: bool = True
) -> ObjectRange:
    """Read bytes of an object, as the request of a browser names them.

    Args:
        path: the object.
        start: first byte; negative for so many last ones, None for the beginning.
        stop: first byte that is not read; None for the end.
        known: tag of a version that the caller has; its bytes are not read again.
        body: whether to read bytes at all.

    Raises:
        FileNotFoundError: there is no such object.
        SourceError: the store does not answer, or refuses.
    """
    client = reading_client(path.root)
    try:
        if not body:
            meta = await obstore.head_async(client, path.key)
            return ObjectRange(b"", 0, meta["size"], meta.get("e_tag") or "")
        answer = await obstore.get_async(client, path.key, options=_options(start, stop, known))
        content, (first, _), meta = bytes(await answer.bytes_async()), answer.range, answer.meta
    except FileNotFoundError:
        raise
    except NotModifiedError:
        return ObjectRange(b"", 0, 0, known or "", is_known=True)
    except BaseError as error:
        raise SourceError(f"cannot read {path}: {reason_of(error)}") from error
    return ObjectRange(content, first, meta["size"], meta.get("e_tag") or "")


def _options(start: int | None, stop: int | None, known: str | None) -> Any:
    options: dict[str, Any] = {"if_none_match": known} if known else {}
    if start is not None and start < 0:
        options["range"] = {"suffix": -start}
    elif stop is not None:
        options["range"] = (start or 0, stop)
    elif start:
        options["range"] = {"offset": start}
    return options
