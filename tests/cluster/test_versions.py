"""Versions of volseg and its packages are compared before a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

import volseg
from volseg.cluster import SerialExecutor, refuse_other_versions
from volseg.cluster.versions import package_versions
from volseg.errors import ClusterError
from volseg.testing.doubles import NoteRecorder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class OtherVersions(SerialExecutor):
    """Workers on which some packages have other versions; None for one that is not installed."""

    where: str = "tcp://node:8786"
    others: tuple[dict[str, str | None], ...] = ({},)

    def run_on_all(self, call: Callable[..., Any], *arguments: Any) -> list[Any]:
        result = call(*arguments)
        return [{name: v for name, v in (result | other).items() if v is not None} for other in self.others]


def notes_of(*others: dict[str, str | None]) -> list[str]:
    notes = NoteRecorder()
    refuse_other_versions(OtherVersions(others=others), notes)
    return notes.lines


def test_workers_with_another_volseg_are_refused() -> None:
    expected = rf"workers of tcp://node:8786 have volseg 0.0.1 and {volseg.__version__}, and this process "
    with pytest.raises(ClusterError, match=expected):
        notes_of({}, {"volseg": "0.0.1"})


def test_other_versions_of_its_packages_are_stated() -> None:
    ours = package_versions()
    assert notes_of({}, {}) == []
    assert notes_of({"zarr": "3.0.0"}, {}) == [
        f"zarr 3.0.0 and {ours['zarr']} on the workers of tcp://node:8786, {ours['zarr']} here"
    ]
    assert notes_of({"zarrs": None}) == [f"zarrs none on the workers of tcp://node:8786, {ours['zarrs']} here"]


def test_a_driver_needs_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    import volseg.cluster.versions as versions

    login_node = {name: v for name, v in package_versions().items() if name != "torch"}
    answers = iter([login_node, package_versions()])
    monkeypatch.setattr(versions, "package_versions", lambda: next(answers))
    assert notes_of({}) == []


def test_workers_that_cannot_import_volseg_are_refused() -> None:
    @dataclass(frozen=True)
    class Bare(SerialExecutor):
        def run_on_all(self, call: Callable[..., Any], *arguments: Any) -> list[Any]:
            raise ModuleNotFoundError("No module named 'volseg'")

    with pytest.raises(ClusterError, match="cannot import volseg .*; install version"):
        refuse_other_versions(Bare(), NoteRecorder())


def test_a_run_with_other_workers_is_refused_before_anything_is_written(
    raw: Path, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SerialExecutor, "run_on_all", OtherVersions(others=({"volseg": "0.0.1"},)).run_on_all)
    with pytest.raises(ClusterError, match=r"have volseg 0\.0\.1"):
        volseg.predict(str(raw), str(tmp_path / "t.zarr"), model=str(small_model), cluster="serial")
    assert not (tmp_path / "t.zarr").exists()
