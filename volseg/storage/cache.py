"""What is worth keeping between runs: small JSON files in the user's cache folder; losing them loses time."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/volseg`, by default `~/.cache/volseg`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "volseg"


def cached(kind: str, key: str, make: Callable[[], Any], is_one: Callable[[Any], bool] = lambda _: True) -> Any:
    """The value kept under a key, or one freshly made and kept; a cache that cannot be used is passed over.

    Args:
        kind: what kind of value, a word.
        key: all that the value depends on.
        make: makes it; it must be plain JSON.
        is_one: whether what was kept is such a value.
    """
    try:
        path = cache_folder() / kind / f"{blake2b(key.encode(), digest_size=16).hexdigest()}.json"
    except RuntimeError:  # a user without a home
        return make()
    with suppress(OSError, ValueError):
        kept = json.loads(path.read_text())
        if is_one(kept):
            return kept
    value = make()
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(value))
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink()
    return value
