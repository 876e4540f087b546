"""The user's cache: small JSON files that save time between runs."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volseg.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable


_EDITION = 1
"""Raised with any change of how a value is computed; versions of volseg differ anyway."""
_MAX_AGE_SECONDS = 30 * 24 * 3600
"""Age from which a value is computed anew: drivers, other load and libraries change what was measured."""


def cache_folder() -> Path:
    """Return `$XDG_CACHE_HOME/volseg`, by default `~/.cache/volseg`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "volseg"


def cache_path(kind: str, key: str, suffix: str) -> Path:
    """Return the path of a cached file.

    Args:
        kind: subfolder.
        key: everything that the content depends on.
        suffix: such as `.json`.

    Raises:
        RuntimeError: the user has no home folder.
    """
    return cache_folder() / kind / (blake2b(key.encode(), digest_size=16).hexdigest() + suffix)


def cached(kind: str, key: str, compute: Callable[[], Any], is_valid: Callable[[Any], bool] = lambda _: True) -> Any:
    """Return the cached value of a key, or compute and cache it; an unusable cache is ignored.

    A value counts for the version of volseg that computed it, and for a month.

    Args:
        kind: kind of value, the name of a subfolder.
        key: everything that the value depends on.
        compute: returns the value, which must be plain JSON.
        is_valid: whether a cached value can be used.
    """
    try:
        path = cache_path(kind, f"{_EDITION}|{__version__}|{key}", ".json")
    except RuntimeError:
        return compute()
    with suppress(OSError, ValueError):
        if 0 <= time.time() - path.stat().st_mtime < _MAX_AGE_SECONDS:
            value = json.loads(path.read_text())
            if is_valid(value):
                return value
    value = compute()
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(value))
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink()
    return value
