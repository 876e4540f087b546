"""What is no file of metadata is refused, in one line and without memory or a wait."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from volseg.errors import SourceError, TargetError
from volseg.prediction.status import run_status
from volseg.storage import Journal, Mark, open_readable, read_record
from volseg.testing.targets import make_target, noise_record

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("kind", ["pipe", "device", "sparse"])
def test_metadata_that_are_no_small_file_are_refused(tmp_path: Path, kind: str) -> None:
    target, other = tmp_path / "t.zarr", tmp_path / "other"
    target.mkdir()
    if kind == "pipe":
        os.mkfifo(other)
    elif kind == "sparse":
        with other.open("wb") as file:
            file.truncate(100 << 30)
    (target / "zarr.json").symlink_to("/dev/zero" if kind == "device" else other)
    with pytest.raises(TargetError, match="has no run record"):
        run_status(target)


@pytest.mark.parametrize("change", [{"chunk": (1, 16, 0)}, {"chunk": (1, 16, 10**12)}, {"shard": (3, 16, 32)}])
def test_a_record_whose_sizes_do_not_fit_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    target = make_target(tmp_path / "t.zarr", noise_record())
    document, record = json.loads((target / "zarr.json").read_text()), read_record(target)
    wrong = record.model_copy(update={"settings": record.settings.model_copy(update=change)})
    document["attributes"]["volseg"] = wrong.to_attributes()
    (target / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(TargetError, match="blocks must consist of whole shards, and shards of whole chunks"):
        read_record(target)


def test_a_mark_of_more_bytes_than_a_disk_has_is_read(tmp_path: Path) -> None:
    target = make_target(tmp_path / "t.zarr", noise_record())
    with Journal(target / "0" / ".volseg") as journal:
        journal.mark(Mark(0, "ab" * 16, 1, "here", 0.1, "", 2**64 - 1, "ab" * 16))
    assert run_status(target).state == "complete"


def test_a_folder_of_sections_with_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0.png")
    (tmp_path / "1.png").symlink_to("nowhere")
    with pytest.raises(SourceError, match=r"0\.png is a pipe, a device or a broken link, and no section; take it out"):
        open_readable(str(tmp_path))
