"""Zarr metadata of strangers: an array, or one line that says what is wrong."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from volseg.cli.main import main
from volseg.errors import SourceError
from volseg.storage.ome_zarr import level_paths
from volseg.storage.zarr_metadata import read_metadata
from volseg.storage.zarr_volume import open_volume
from volseg.testing.factories import VOXEL_NM, make_volume

if TYPE_CHECKING:
    from pathlib import Path


def write_array(path: Path, **changes: Any) -> Path:
    """Write the metadata of a Zarr 3 array, and no chunk."""
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [4, 64, 64],
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 32, 32]}},
        "chunk_key_encoding": {"name": "default"},
        "fill_value": 7,
        "codecs": [{"name": "bytes"}],
        "attributes": {},
    }
    path.mkdir(parents=True)
    (path / "zarr.json").write_text(json.dumps(document | changes))
    return path


def chunks(*shape: Any) -> dict[str, Any]:
    return {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shape)}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [-4, 64, 64]}, r"its shape \[-4, 64, 64\] is not a list of sizes"),
        ({"shape": [4.5, 64, 64]}, "its shape .* is not a list of sizes"),
        ({"shape": [True, 64, 64]}, "its shape .* is not a list of sizes"),
        ({"shape": None}, "its shape None is not a list of sizes"),
        ({"shape": "444"}, "its shape 444 is not a list of sizes"),
        ({"shape": [10**400, 64, 64]}, r"its shape \[10{77,80} \.\. is not a list of sizes"),
        ({"shape": [2**21] * 3}, "has shape .*, above 2.62 voxels in all"),
        ({"shape": [10**9, 4, 64, 64], **chunks(1, 2, 32, 32)}, "with more than 65536 channels"),
        (chunks(0, 32, 32), r"its chunks \[0, 32, 32\] are not a size for each axis"),
        (chunks(2, 32), "its chunks .* are not a size for each axis"),
        ({"chunk_grid": [1]}, "chunk_grid should be a JSON object, and is of type list"),
        ({"chunk_grid": None}, "Expected dict"),
        ({"attributes": [1]}, "attributes should be a JSON object"),
        ({"data_type": "foo"}, "holds foo; supported types"),
        ({"data_type": 5}, "is not subscriptable"),
        ({"attributes": {"resolution": [10**400, 4, 4]}}, ""),
    ],
)
def test_metadata_of_no_array_are_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write_array(tmp_path / "raw.zarr", **changes)
    if not message:
        assert open_volume(str(path)).place.problem.startswith("it states resolution [1000")
        return
    with pytest.raises(SourceError, match=f"raw.zarr.*{message}") as caught:
        open_volume(str(path))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "text", ["[]", "5", "null", "", "[" * 100_000, '{"a":' * 100_000, '{"shape": ' + "9" * 5000 + "}"]
)
@pytest.mark.parametrize("name", ["zarr.json", ".zarray", ".zattrs"])
def test_documents_that_are_no_object_are_one_line(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / ".zarray").write_text('{"shape": [1, 1, 1], "dtype": "|u1", "chunks": [1, 1, 1]}')
    (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=f"{name} (is not JSON|is nested too deep|should be a JSON object)"):
        read_metadata(str(tmp_path))


def test_metadata_of_a_gigabyte_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "zarr.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(SourceError, match="zarr.json has 1099511627776 bytes, more than"):
        read_metadata(str(tmp_path))


LEAVING = ["../other", "a/../../other", "..", "/etc", "%2e%2e/other", "%252e%252e/other", "..\\other", ".\t./other"]


@pytest.mark.parametrize("path", LEAVING)
def test_a_level_outside_its_group_is_refused(tmp_path: Path, path: str) -> None:
    make_volume(tmp_path / "other", (2, 32, 32))
    image = make_volume(tmp_path / "image", (2, 32, 32))
    document = json.loads((image / "zarr.json").read_text())
    document["attributes"]["ome"]["multiscales"][0]["datasets"].append({"path": path})
    (image / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(
        SourceError, match="image has invalid OME-Zarr metadata .the path of a level, .* leaves the group"
    ):
        open_volume(str(image))
    assert open_volume(str(image / "0")).place.voxel_nm == VOXEL_NM


def test_a_level_whose_name_no_file_system_takes_is_one_line(tmp_path: Path) -> None:
    image = make_volume(tmp_path / "image", (2, 32, 32))
    text = (
        (image / "zarr.json")
        .read_text()
        .replace('"path":"0"', f'"path":"{"a" * 300}"')
        .replace('"path": "0"', f'"path": "{"a" * 300}"')
    )
    (image / "zarr.json").write_text(text)
    with pytest.raises(SourceError, match="cannot be read: File name too long"):
        open_volume(str(image))


def test_a_level_inside_its_group_is_read_also_through_a_link(tmp_path: Path) -> None:
    assert level_paths({"datasets": [{"path": "./a/../0"}, {"path": "..a/b"}]}) == ["./a/../0", "..a/b"]
    other, image = make_volume(tmp_path / "other", (2, 32, 32)), make_volume(tmp_path / "image", (2, 32, 32))
    (image / "0").rename(tmp_path / "away")
    (image / "0").symlink_to(other / "0")
    assert open_volume(str(image)).shape == (2, 32, 32)


@pytest.mark.parametrize(
    ("shape", "chunk"),
    [((10**15, 64, 64), (2, 32, 32)), ((4, 64, 10**15), (2, 32, 1_000_003)), ((2**20,) * 3, (2**40, 8, 8))],
)
def test_a_dry_run_of_an_absurd_array_takes_no_time(
    tmp_path: Path, small_model: Path, shape: tuple[int, ...], chunk: tuple[int, ...]
) -> None:
    path = write_array(tmp_path / "raw.zarr", shape=shape, **chunks(*chunk))
    started = time.process_time()
    result = CliRunner().invoke(
        main, ["predict", str(path), str(tmp_path / "out.zarr"), "--model", str(small_model), "--dry-run"]
    )
    assert time.process_time() - started < 5
    assert result.exit_code == (2 if shape[0] == 10**15 else 0), result.output
    assert ("more than 2^40" in result.output) == (result.exit_code == 2)
