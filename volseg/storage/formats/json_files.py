"""JSON metadata of folders and URLs, and what of them can be wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from volseg.errors import SourceError
from volseg.storage.object_client import reason_of
from volseg.storage.zarr_store import open_store, read_json

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_SIZE = 1 << 62


def json_at(location: str, key: str) -> Mapping[str, Any] | None:
    """Read a JSON object of a folder or a URL; None if there is none.

    Raises:
        SourceError: the folder does not exist, or the file cannot be read or is no JSON object.
    """
    try:
        return read_json(open_store(location), key)
    except SourceError as error:
        if "does not exist" in str(error) or "is a file" in str(error):
            return None
        raise
    except ValueError as error:
        raise SourceError(f"cannot read the metadata of {location}: {error}") from error
    except Exception as error:  # each store raises errors of its own
        raise SourceError(f"cannot read the metadata of {location}: {reason_of(error)}") from error


def sizes_of(document: Mapping[str, Any], key: str) -> tuple[int, ...]:
    """Return a list of sizes, which may be written as text.

    Raises:
        ValueError: it is none.

    >>> sizes_of({"mag": ["2", 2, "1"]}, "mag")
    (2, 2, 1)
    """
    values = whole_numbers(document, key)
    if min(values) < 1:
        raise ValueError(f"{key} {values} is not a list of sizes")
    return values


def whole_numbers(document: Mapping[str, Any], key: str) -> tuple[int, ...]:
    """Return a list of whole numbers, which may be written as text.

    Raises:
        ValueError: it is none.
    """
    stated = document.get(key)
    if not isinstance(stated, list) or not stated or not all(_is_whole(value) for value in stated):
        raise ValueError(f"{key} {stated!s:.80} is not a list of whole numbers")
    return tuple(int(value) for value in stated)


def _is_whole(value: object) -> bool:
    if isinstance(value, str):
        return value.removeprefix("-").isascii() and value.removeprefix("-").isdecimal() and len(value) < 19
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= _MAX_SIZE and value == int(value)
