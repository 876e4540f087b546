"""Locks of files: a look at one does not refuse whoever takes it."""

from __future__ import annotations

import fcntl
import threading
import time
from typing import TYPE_CHECKING

import pytest

from volseg.errors import TargetError
from volseg.storage.lock import is_locked, locked

if TYPE_CHECKING:
    from pathlib import Path


def test_a_lock_is_seen_while_it_is_held(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    with locked(path, "held"):
        assert is_locked(path)
        with pytest.raises(TargetError, match="held"), locked(path, "held"):
            pass
    assert not is_locked(path)


def test_who_looks_at_a_lock_for_a_moment_keeps_nobody_from_taking_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_SH)

        def look() -> None:
            time.sleep(0.02)
            fcntl.flock(file, fcntl.LOCK_UN)

        thread = threading.Thread(target=look)
        thread.start()
        with locked(path, "held"):
            assert is_locked(path)
        thread.join()
