"""Writing: valid OME-Zarr, only whole shards, and no file of the user deleted by mistake."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaozarrs
import zarr

from volseg.blocks import Box
from volseg.errors import TargetError
from volseg.storage import open_target
from volseg.storage.create import create_volume
from volseg.storage.marks import digest_of
from volseg.storage.paths import refuse_other_content
from volseg.storage.place import Place
from volseg.storage.publish import staged
from volseg.storage.target import voxel_digest
from volseg.testing.factories import blobs, make_volume

if TYPE_CHECKING:
    from pathlib import Path


def make(path: Path, shape=(6, 40, 40), shard=(4, 32, 32), chunk=(2, 16, 16)):
    return create_volume(
        path, shape=shape, shard=shard, chunk=chunk, dtype="uint8", place=Place.of_nm((50.0, 4.0, 4.0))
    )


def test_a_volume_is_valid_ome_zarr_sharded_checked_and_in_nanometres(tmp_path: Path) -> None:
    make(tmp_path / "t.zarr")
    yaozarrs.validate_zarr_store(str(tmp_path / "t.zarr"))
    multiscale = json.loads((tmp_path / "t.zarr" / "zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]
    assert [(axis["name"], axis["unit"]) for axis in multiscale["axes"]] == [(n, "nanometer") for n in "zyx"]
    assert multiscale["datasets"][0]["coordinateTransformations"] == [{"type": "scale", "scale": [50.0, 4.0, 4.0]}]
    array = json.loads((tmp_path / "t.zarr" / "0" / "zarr.json").read_text())
    sharding = array["codecs"][0]
    assert sharding["name"] == "sharding_indexed"
    assert sharding["configuration"]["chunk_shape"] == [2, 16, 16]
    assert [codec["name"] for codec in sharding["configuration"]["codecs"]][-1] == "crc32c"
    assert (array["data_type"], array["dimension_names"]) == ("uint8", ["z", "y", "x"])


def test_an_all_zero_block_is_stored_unlike_a_lost_one(tmp_path: Path) -> None:
    target = make(tmp_path / "t.zarr")
    target.write(Box((0, 0, 0), (4, 32, 32)), np.zeros((4, 32, 32), np.uint8))
    assert (tmp_path / "t.zarr" / "0" / "c" / "0" / "0" / "0").is_file()
    reopened = open_target(tmp_path / "t.zarr")
    reopened.write(Box((4, 32, 32), (6, 40, 40)), np.zeros((2, 8, 8), np.uint8))
    assert (tmp_path / "t.zarr" / "0" / "c" / "1" / "1" / "1").is_file()


@pytest.mark.parametrize(
    "box", [Box((0, 0, 0), (4, 32, 16)), Box((0, 16, 0), (4, 32, 32)), Box((0, 0, 0), (3, 32, 32))]
)
def test_a_box_that_shares_a_shard_is_refused(tmp_path: Path, box: Box) -> None:
    target = make(tmp_path / "t.zarr")
    with pytest.raises(TargetError, match="is not made of whole shards"):
        target.write(box, np.zeros(box.shape, np.uint8))


def test_a_truncated_shard_of_an_earlier_attempt_does_not_matter(tmp_path: Path) -> None:
    target, box = make(tmp_path / "t.zarr"), Box((0, 0, 0), (4, 32, 32))
    voxels = blobs(box.shape)
    digest, _, file_digest = target.write(box, voxels)
    shard = tmp_path / "t.zarr" / "0" / "c" / "0" / "0" / "0"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-7])
    assert target.write(box, voxels) == (digest, len(whole), file_digest)
    assert (digest, file_digest) == (voxel_digest(voxels), digest_of(whole))
    assert shard.read_bytes() == whole


def test_a_flipped_bit_is_an_error_when_read(tmp_path: Path) -> None:
    from volseg.errors import SourceError
    from volseg.storage import open_volume

    path = make_volume(tmp_path / "raw.zarr", (2, 32, 32))
    shard = next(file for file in (path / "0" / "c").rglob("*") if file.is_file())
    content = bytearray(shard.read_bytes())
    content[10] ^= 4
    shard.write_bytes(bytes(content))
    with pytest.raises(SourceError, match="checksum|[Cc]rc32c|corrupt"):
        open_volume(str(path)).read(Box.of_shape((2, 32, 32)))


def test_an_existing_path_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "t.zarr").mkdir()
    with pytest.raises(TargetError, match="exists already"):
        make(tmp_path / "t.zarr")


def test_overwrite_replaces_only_zarrs(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "only-copy.txt").write_text("precious")
    with pytest.raises(TargetError, match="thesis is not a Zarr, so --overwrite"):
        refuse_other_content(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "only-copy.txt").read_text() == "precious"
    with pytest.raises(TargetError, match="is not a Zarr"), staged(tmp_path / "thesis", overwrite=True) as new:
        make(new)
    assert (tmp_path / "thesis" / "only-copy.txt").exists()


def test_another_group_is_not_opened_as_a_target(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "g", mode="w")
    with pytest.raises(TargetError, match="g is not a target of volseg"):
        open_target(tmp_path / "g")


def test_readers_do_not_list_the_folder_of_the_journal(tmp_path: Path) -> None:
    target = make(tmp_path / "t.zarr")
    target.journal.mkdir()
    (target.journal / "journal-0001.marks").write_bytes(b"")
    assert [name for name, _ in zarr.open_group(tmp_path / "t.zarr", mode="r").members(max_depth=None)] == ["0"]
    yaozarrs.validate_zarr_store(str(tmp_path / "t.zarr"))
