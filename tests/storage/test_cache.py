"""Values cached between runs."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from volseg.storage import cache as cache_module
from volseg.storage import cached
from volseg.storage.cache import cache_folder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_value_is_computed_once_for_a_key() -> None:
    computed: list[str] = []

    def compute(name: str) -> list[str]:
        computed.append(name)
        return [name]

    assert cached("words", "a", lambda: compute("a")) == cached("words", "a", lambda: compute("never")) == ["a"]
    assert cached("words", "b", lambda: compute("b")) == ["b"]
    assert computed == ["a", "b"]


def test_a_failed_computation_is_not_cached() -> None:
    def fail() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        cached("words", "a", fail)
    assert cached("words", "a", lambda: 3) == 3


def test_a_broken_file_is_replaced() -> None:
    cached("words", "a", lambda: 1)
    (file,) = (cache_folder() / "words").iterdir()
    file.write_text('{"half')
    assert cached("words", "a", lambda: 2) == 2
    assert cached("words", "a", lambda: 3) == 2


def test_a_folder_that_cannot_be_created_only_costs_time(empty: Path) -> None:
    empty.write_text("a file where the folder would be")
    assert cached("words", "a", lambda: 1) == 1
    assert cached("words", "a", lambda: 2) == 2


def test_a_value_expires_after_a_month() -> None:
    cached("words", "a", lambda: 1)
    (file,) = (cache_folder() / "words").iterdir()
    for days, expected in ((29, 1), (31, 2), (0, 2)):
        os.utime(file, (time.time() - days * 24 * 3600,) * 2)
        assert cached("words", "a", lambda: 2) == expected


@pytest.mark.parametrize("edition", ["__version__", "_EDITION"])
def test_a_value_of_another_edition_is_not_used(monkeypatch: pytest.MonkeyPatch, edition: str) -> None:
    cached("words", "a", lambda: 1)
    monkeypatch.setattr(cache_module, edition, "another")
    assert cached("words", "a", lambda: 2) == 2
