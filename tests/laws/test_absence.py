"""Absence is not data: what the source lacks is counted before the first block; what it loses later fails blocks."""

from __future__ import annotations

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

from volseg.cli.main import main
from volseg.cluster import SerialExecutor
from volseg.config import PredictConfig
from volseg.errors import ConfigError, ResumeError, SourceError, SourceLostError
from volseg.prediction import constants
from volseg.prediction.prepare import prepare
from volseg.prediction.run import execute
from volseg.storage import open_target, read_marks, read_record
from volseg.testing.doubles import NoteRecorder
from volseg.testing.factories import blobs, make_model, make_volume, read_volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from click.testing import Result

    from volseg.prediction.summary import Summary

SHAPE = (4, 64, 64)
CHUNK = "0/c/1/1/1"
"""Sections 2 and 3, rows and columns from 32 on."""
OPTIONS: dict[str, Any] = {
    "precision": "float32",
    "cluster": "serial",
    "halo": (0, 0, 0),
    "block": (2, 32, 32),
    "tile": (1, 32, 32),
}


class ManyAtOnce(ThreadingHTTPServer):
    request_queue_size = 64  # of 5 by default the kernel lets some wait for a second


class Callback(NoteRecorder):
    """Calls a function when a number of blocks is done."""

    def __init__(self, after: int = -1, call: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.left, self.call = after, call

    def begin(self, total: int) -> None:
        if self.left == 0:
            self.call()

    def advance(self, voxels: int, busy: float | None = None) -> None:
        self.left -= 1
        if self.left == 0:
            self.call()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "m.safetensors", arguments={"width": 2, "depth": 1})


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return make_volume(tmp_path / "raw.zarr", SHAPE)


@pytest.fixture(scope="module")
def whole(model: Path) -> np.ndarray:
    """The map of the complete source."""
    run(make_volume(model.parent / "raw.zarr", SHAPE), model.parent / "whole.zarr", model)
    return read_volume(model.parent / "whole.zarr")


def run(raw: Path | str, target: Path, model: Path, progress: NoteRecorder | None = None, **options: Any) -> Summary:
    config = PredictConfig(source=str(raw), target=str(target), model=str(model), **{**OPTIONS, **options})
    spec, recorded = prepare(config)
    return execute(spec, recorded, progress or NoteRecorder())


def test_a_source_that_vanishes_between_blocks_ends_the_run_and_a_resume_finishes_it(
    raw: Path, model: Path, whole: np.ndarray, tmp_path: Path
) -> None:
    away = tmp_path / "away.zarr"
    with pytest.raises(SourceLostError, match="is gone; check the path, or the mount"):
        run(raw, tmp_path / "out.zarr", model, Callback(3, lambda: raw.rename(away)))
    away.rename(raw)
    assert run(raw, tmp_path / "out.zarr", model, resume=True).done == 5
    np.testing.assert_array_equal(read_volume(tmp_path / "out.zarr"), whole)


@pytest.mark.parametrize("change", ["gone", "changed"])
def test_an_empty_block_of_a_file_that_is_gone_or_changed_fails(model: Path, tmp_path: Path, change: str) -> None:
    h5py = pytest.importorskip("h5py")
    voxels = blobs(SHAPE)
    voxels[2:, 32:, 32:] = 0
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["raw"] = voxels

    def edit() -> None:
        if change == "gone":
            (tmp_path / "raw.h5").unlink()
        else:
            with (tmp_path / "raw.h5").open("ab") as file:
                file.write(b"\0")

    with pytest.raises(SourceLostError, match="is gone" if change == "gone" else "has changed"):
        run(tmp_path / "raw.h5", tmp_path / "out.zarr", model, Callback(6, edit))
    assert [mark.block for mark in read_marks(tmp_path / "out.zarr" / "0" / ".volseg")] == list(range(7))


def test_chunks_that_are_missing_at_the_start_are_stated_counted_and_read_as_the_fill_value(
    raw: Path, model: Path, tmp_path: Path
) -> None:
    voxels = blobs(SHAPE)
    voxels[2:, 32:, 32:] = 0
    (raw / CHUNK).unlink()
    notes = NoteRecorder()
    summary = run(raw, tmp_path / "out.zarr", model, notes)
    (line,) = [line for line in notes.lines if "lacks" in line]
    assert "lacks 1 of 8 chunks (12.50%), such as c/1/1/1: they read as 0" in line
    assert (summary.chunks, summary.chunks_checked, summary.chunks_absent) == (8, 8, 1)
    assert (summary.lacking, summary.unexplained, summary.failed) == (1, 0, {})
    source = read_record(tmp_path / "out.zarr").source
    assert (source.chunks, source.chunks_checked, source.chunks_absent) == (8, 8, 1)
    assert [mark.absent for mark in read_marks(open_target(tmp_path / "out.zarr").journal)].count(1) == 1
    run(make_volume(tmp_path / "zeros.zarr", SHAPE, voxels=voxels), tmp_path / "same.zarr", model)
    np.testing.assert_array_equal(read_volume(tmp_path / "out.zarr"), read_volume(tmp_path / "same.zarr"))
    assert run(raw, tmp_path / "out.zarr", model, resume=True).lacking == 1


def test_a_complete_source_is_not_commented(raw: Path, model: Path, tmp_path: Path) -> None:
    notes = NoteRecorder()
    summary = run(raw, tmp_path / "out.zarr", model, notes)
    assert not [line for line in notes.lines if "lacks" in line]
    assert (summary.chunks_checked, summary.chunks_absent, summary.lacking) == (8, 0, 0)


def test_the_census_is_of_the_region_and_its_halo(raw: Path, model: Path, tmp_path: Path) -> None:
    (raw / CHUNK).unlink()
    summary = run(raw, tmp_path / "out.zarr", model, roi="0:2,:,:")
    assert (summary.chunks, summary.chunks_absent) == (4, 0)


def test_refusing_ends_before_the_first_block_with_the_number_and_the_keys(
    raw: Path, model: Path, tmp_path: Path
) -> None:
    run(raw, tmp_path / "whole.zarr", model, missing_chunks="refuse")
    (raw / CHUNK).unlink()
    with pytest.raises(SourceError, match=r"lacks 1 of 8 chunks .*c/1/1/1.*--missing-chunks fill"):
        run(raw, tmp_path / "out.zarr", model, missing_chunks="refuse")
    assert not (tmp_path / "out.zarr").exists()


def test_the_option_is_refused_for_a_source_without_chunk_files(model: Path, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["raw"] = blobs(SHAPE)
    with pytest.raises(ConfigError, match="--missing-chunks does not apply to"):
        run(tmp_path / "raw.h5", tmp_path / "out.zarr", model, missing_chunks="fill")


@pytest.mark.parametrize("missing", [None, "fill"])
def test_a_chunk_that_goes_missing_during_the_run_fails_its_block_alone(
    raw: Path, model: Path, whole: np.ndarray, tmp_path: Path, missing: Any
) -> None:
    content = (raw / CHUNK).read_bytes()
    summary = run(raw, tmp_path / "out.zarr", model, Callback(2, (raw / CHUNK).unlink), missing_chunks=missing)
    assert list(summary.failed) == [7]
    assert "chunk c/1/1/1" in summary.failed[7]
    assert "was there at the start and is gone" in summary.failed[7]
    (raw / CHUNK).write_bytes(content)
    assert run(raw, tmp_path / "out.zarr", model, resume=True).failed == {}
    np.testing.assert_array_equal(read_volume(tmp_path / "out.zarr"), whole)


def test_a_chunk_that_goes_missing_before_the_statistics_ends_the_run(
    raw: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = constants._measure

    def lose_and_measure(*arguments: Any) -> Any:
        (raw / CHUNK).unlink(missing_ok=True)
        return measure(*arguments)

    monkeypatch.setattr(constants, "_measure", lose_and_measure)
    with pytest.raises(SourceError, match="chunk c/1/1/1 of .* was there at the start and is gone"):
        run(raw, tmp_path / "out.zarr", model)


def test_a_file_that_changes_during_the_statistics_ends_the_run(model: Path, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "raw.h5"
    with h5py.File(path, "w") as file:
        file["raw"] = blobs(SHAPE)
    spec, _ = prepare(PredictConfig(source=str(path), target=str(tmp_path / "a"), model=str(model), **OPTIONS))
    with path.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(SourceError, match="has changed"):
        constants.run_constants(spec, SerialExecutor(), NoteRecorder())


@pytest.mark.slow
def test_the_census_of_the_start_counts_for_a_resume_also_if_its_file_is_lost(
    raw: Path, model: Path, tmp_path: Path
) -> None:
    run(raw, tmp_path / "out.zarr", model)
    folder = open_target(tmp_path / "out.zarr").journal
    (census,) = folder.glob("chunks-*.bin")
    content = census.read_bytes()
    for damage in (content[:-1], content[::-1], b"", None):
        census.unlink() if damage is None else census.write_bytes(damage)
        run(raw, tmp_path / "out.zarr", model, resume=True)
        assert census.read_bytes() == content
    census.unlink()
    (raw / CHUNK).unlink()
    with pytest.raises(ResumeError, match=r"lacks others than at the start \(0 then, 1 found\)"):
        run(raw, tmp_path / "out.zarr", model, resume=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, set[str]]]:
    """A web server of the test's folder; its URL, and the ends of paths for which it answers 404."""
    lost: set[str] = set()

    class Server(SimpleHTTPRequestHandler):
        def send_head(self) -> Any:
            if self.path.endswith(tuple(lost)):
                self.send_error(404)
                return None
            return super().send_head()

        def log_message(self, *_: Any) -> None:
            pass

    with ManyAtOnce(("127.0.0.1", 0), partial(Server, directory=str(tmp_path))) as listening:
        thread = threading.Thread(target=partial(listening.serve_forever, 0.01))
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}", lost
        listening.shutdown()
        thread.join()


def command(source: str, target: Path, model: Path, *more: str) -> Result:
    arguments = ["predict", source, str(target), "--model", str(model), "--halo", "0,0,0", "--block", "2,32,32"]
    arguments += ["--tile", "1,32,32", "--precision", "float32", "--cluster", "serial", "--json", *more]
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def test_chunks_that_a_web_server_lacks_end_in_exit_code_3_until_they_are_served_or_accepted(
    raw: Path, model: Path, server: tuple[str, set[str]], tmp_path: Path
) -> None:
    url, lost = server
    out = tmp_path / "out.zarr"
    lost.add("c/1/1/1")
    first = command(f"{url}/{raw.name}", out, model)
    assert first.exit_code == 3
    assert "1 block read chunks that the server does not have" in first.stderr
    assert "lacks 1 of 8 chunks that were looked for" in first.stderr
    summary = json.loads(first.stdout)
    assert (summary["chunks_checked"], summary["chunks_absent"], summary["lacking"]) == (8, 1, 1)
    again = command(f"{url}/{raw.name}", out, model, "--resume")
    assert (again.exit_code, json.loads(again.stdout)["already_done"]) == (3, 7)
    accepted = command(f"{url}/{raw.name}", out, model, "--resume", "--missing-chunks", "fill")
    assert (accepted.exit_code, json.loads(accepted.stdout)["lacking"]) == (0, 1)
    assert command(f"{url}/{raw.name}", tmp_path / "b.zarr", model, "--missing-chunks", "fill").exit_code == 0
    assert command(f"{url}/{raw.name}", tmp_path / "b.zarr", model, "--resume").exit_code == 0  # as recorded
    with pytest.raises(SourceError, match="c/1/1/1"):
        run(f"{url}/{raw.name}", tmp_path / "c.zarr", model, missing_chunks="refuse")


def test_a_chunk_that_a_web_server_serves_again_heals_the_map_at_the_next_resume(
    raw: Path, model: Path, whole: np.ndarray, server: tuple[str, set[str]], tmp_path: Path
) -> None:
    url, lost = server
    progress = Callback(0, partial(lost.add, "c/1/1/1"))
    summary = run(f"{url}/{raw.name}", tmp_path / "out.zarr", model, progress)
    assert (summary.chunks_absent, summary.lacking, summary.unexplained, summary.failed) == (0, 1, 1, {})
    lost.clear()
    again = run(f"{url}/{raw.name}", tmp_path / "out.zarr", model, resume=True)
    assert (again.done, again.unexplained) == (1, 0)
    np.testing.assert_array_equal(read_volume(tmp_path / "out.zarr"), whole)


def test_refusing_also_fails_a_block_that_meets_a_chunk_which_no_sample_showed(
    raw: Path, model: Path, server: tuple[str, set[str]], tmp_path: Path
) -> None:
    url, lost = server
    progress = Callback(0, partial(lost.add, "c/1/1/1"))
    summary = run(f"{url}/{raw.name}", tmp_path / "out.zarr", model, progress, missing_chunks="refuse")
    assert list(summary.failed) == [7]
    assert "chunk c/1/1/1" in summary.failed[7]
    assert "is missing" in summary.failed[7]


def test_a_web_server_whose_metadata_go_with_the_chunks_fails_blocks(
    raw: Path, model: Path, server: tuple[str, set[str]], tmp_path: Path
) -> None:
    url, lost = server
    summary = run(f"{url}/{raw.name}", tmp_path / "out.zarr", model, Callback(7, partial(lost.update, ("1", "json"))))
    assert list(summary.failed) == [7]
    assert "is gone" in summary.failed[7]
