"""Levels, channels, missing chunks and packages, and metadata that cannot be right."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.storage.formats.test_formats import (
    NM,
    SHAPE,
    VOXELS,
    XYZ,
    bmp,
    mrc,
    n5,
    nifti,
    precomputed,
    tensorstore,
    webknossos,
    write_nrrd,
    zarr_zip,
)
from volseg.blocks import Box
from volseg.errors import ConfigError, SourceError, SourceLostError, VolsegError
from volseg.prediction.absence import CheckedSource, ChunkRule
from volseg.storage import LABELS, ReadOptions, open_readable, take_census
from volseg.storage.chunk_grid import Chunked

if TYPE_CHECKING:
    from collections.abc import Callable

WHOLE = Box.of_shape(SHAPE)


def lossy(path: Path) -> str:
    """A volume of two scales, the second half as fine along x and y."""
    location = precomputed(path)
    coarse = {"resolution": [12, 8, 50], "encoding": "raw", "chunk_size": [8, 8, 8], "size": [12, 9, 5],
              "voxel_offset": [5, 3, 3], "key": "../s2" if path.name == "leaves" else "s2"}  # fmt: skip
    info = json.loads((path / "info").read_text())
    info["scales"].append({**coarse, "chunk_sizes": [coarse.pop("chunk_size")]})
    (path / "info").write_text(json.dumps(info))
    if path.name != "leaves":
        spec = {"driver": "neuroglancer_precomputed", "kvstore": f"file://{path}/", "scale_index": 1}
        tensorstore.open(spec).result()[..., 0] = XYZ[:12, :9]
    return location


def test_a_level_of_a_precomputed_volume_lies_where_its_voxels_do(tmp_path: Path) -> None:
    location = lossy(tmp_path / "raw")
    coarse = open_readable(location, level=1)
    assert coarse.voxel_nm == (50.0, 8.0, 12.0)
    assert coarse.translation_nm == (150.0, 3 * 8 + 2.0, 5 * 12 + 3.0)
    assert coarse.levels_nm == (NM, (50.0, 8.0, 12.0))  # type: ignore[attr-defined]
    np.testing.assert_array_equal(open_readable(coarse.location).read(Box.of_shape((5, 9, 12))), VOXELS[:, :9, :12])
    with pytest.raises(ConfigError, match="no level 2; it has levels 0 to 1"):
        open_readable(location, level=2)
    with pytest.raises(ConfigError, match="one scale, so it has no level 1; name .*raw"):
        open_readable(coarse.location, level=1)


def test_levels_of_an_n5_are_those_of_n5_viewer(tmp_path: Path) -> None:
    n5(tmp_path / "s0")
    n5(tmp_path / "s1", voxels=XYZ[:12, :9])
    group = {"resolution": [6, 4, 50], "units": ["nm"] * 3, "scales": [[1, 1, 1], [2, 2, 1]]}
    (tmp_path / "attributes.json").write_text(json.dumps(group))
    fine, coarse = (open_readable(str(tmp_path), level=level) for level in (None, 1))
    assert (fine.voxel_nm, fine.translation_nm) == (NM, (0.0, 0.0, 0.0))
    assert (coarse.voxel_nm, coarse.translation_nm) == ((50.0, 8.0, 12.0), (0.0, 2.0, 3.0))
    assert open_readable(coarse.location).voxel_nm == coarse.voxel_nm


def test_a_channel_of_an_n5_is_chosen(tmp_path: Path) -> None:
    two = np.stack([XYZ, 255 - XYZ], axis=3)
    metadata = {"dimensions": two.shape, "blockSize": [8, 8, 4, 1], "dataType": "uint8", "compression": {"type": "raw"},
                "axes": ["x", "y", "z", "c"]}  # fmt: skip
    spec = {"driver": "n5", "kvstore": f"file://{tmp_path}/", "metadata": metadata}
    tensorstore.open(spec, create=True).result()[...] = two
    with pytest.raises(SourceError, match="holds 2 channels .* --channel"):
        open_readable(str(tmp_path))
    volume = open_readable(str(tmp_path), options=ReadOptions(channel=1))
    np.testing.assert_array_equal(volume.read(WHOLE), 255 - VOXELS)


MISSING: dict[str, tuple[Callable[[Path], str], str]] = {
    "n5": (n5, "0/1/0"),
    "precomputed": (precomputed, "s/11-19_15-23_3-8"),
    "webknossos zarr3": (lambda path: webknossos(path, "zarr3"), "color/1/c/0/0/0/0"),
    "wkw": (lambda path: webknossos(path, "wkw"), "color/1/z0/y0/x0.wkw"),
}


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_chunk_is_counted_and_told_from_zeros(name: str, tmp_path: Path) -> None:
    write, chunk = MISSING[name]
    location = write(tmp_path / "raw")
    volume = open_readable(location)
    assert isinstance(volume, Chunked)
    before = take_census(volume, WHOLE)
    assert (before.absent, before.bits is not None) == (0, True)
    assert volume.read_checked(WHOLE)[1] == []
    (tmp_path / "raw" / chunk).unlink()
    volume = open_readable(location)
    assert isinstance(volume, Chunked)
    voxels, missing = volume.read_checked(WHOLE)
    after = take_census(volume, WHOLE)
    assert (after.absent, len(missing)) == (1, 1)
    assert chunk.endswith(after.examples[0])
    assert (voxels == 0).any()
    with pytest.raises(SourceError, match="was there at the start and is gone"):
        CheckedSource(volume, ChunkRule(before)).read(WHOLE)


def test_a_chunk_that_a_shard_lacks_is_missing(tmp_path: Path) -> None:
    location = precomputed(tmp_path / "raw", sharded=True)
    spec = {"driver": "neuroglancer_precomputed", "kvstore": f"file://{location}/"}
    tensorstore.open(spec).result()[11:19, 15:18] = 0
    volume = open_readable(location)
    assert isinstance(volume, Chunked)
    voxels, missing = volume.read_checked(WHOLE)
    assert (voxels[:, 8:11, :8] == 0).all()
    assert missing == []
    for shard in sorted((tmp_path / "raw" / "s").iterdir())[:1]:
        shard.unlink()
    volume = open_readable(location)
    assert isinstance(volume, Chunked)
    assert volume.read_checked(WHOLE)[1]
    assert take_census(volume, WHOLE).absent == len(volume.read_checked(WHOLE)[1])


def edited(write: Callable[[Path], str], file: str, key: str, value: Any) -> Callable[[Path], str]:
    def written(path: Path) -> str:
        location = write(path)
        document = json.loads((path / file).read_text())
        target = document
        *above, last = key.split(".")
        for part in above:
            target = target[int(part) if part.isdigit() else part]
        target[last] = value
        (path / file).write_text(json.dumps(document))
        return location

    return written


def text(write: Callable[[Path], str], file: str, content: str) -> Callable[[Path], str]:
    def written(path: Path) -> str:
        location = write(path)
        (path / file).write_text(content)
        return location

    return written


def cut(write: Callable[[Path], str]) -> Callable[[Path], str]:
    def written(path: Path) -> str:
        file = Path(write(path))
        file.write_bytes(file.read_bytes()[:-200])
        return str(file)

    return written


WK, PROPERTIES = (lambda path: webknossos(path, "zarr3")), "datasource-properties.json"
REFUSED: dict[str, tuple[Callable[[Path], str], str]] = {
    "info is no JSON": (text(precomputed, "info", "{"), "cannot read the metadata of .*info is not JSON"),
    "info of a mesh": (text(precomputed, "info", '{"@type": "neuroglancer_skeletons"}'), "skeletons, and no volume"),
    "info without sizes": (edited(precomputed, "info", "scales.0.size", "large"), "invalid info .*size large"),
    "a scale outside": (lambda path: lossy(path.parent / "leaves"), "invalid info .*leaves the group"),
    "an unknown type": (edited(precomputed, "info", "data_type", "float64"), "holds float64; supported types"),
    "an unknown encoding": (edited(precomputed, "info", "scales.0.encoding", "magic"), "cannot be opened: .*encoding"),
    "a scale that is gone": (edited(precomputed, "info", "scales.0.key", "other"), "does not exist, though the info"),
    "N5 of no sizes": (edited(n5, "attributes.json", "dimensions", [-1, 2, 3]), "invalid N5 metadata"),
    "N5 of two blocks": (edited(n5, "attributes.json", "blockSize", [8, 8]), "invalid N5 metadata"),
    "N5 in lz9": (edited(n5, "attributes.json", "compression", {"type": "lz9"}), "cannot be opened: .*lz9"),
    "WEBKNOSSOS box outside": (edited(WK, PROPERTIES, "dataLayers.0.boundingBox.width", 999), "outside of which"),
    "WEBKNOSSOS mag outside": (edited(WK, PROPERTIES, "dataLayers.0.mags.0.path", "../../x"), "leaves the group"),
    "WEBKNOSSOS mag far": (edited(WK, PROPERTIES, "dataLayers.0.mags.0.path", "https://u:pw@h/x"), r"\*\*\*@h/x"),
    "WEBKNOSSOS mag of text": (edited(WK, PROPERTIES, "dataLayers.0.mags.0.mag", "two"), "not a list of whole"),
    "WEBKNOSSOS broken": (text(WK, PROPERTIES, "{"), "is not JSON"),
    "MRC cut": (cut(mrc), "is cut short|cannot be read as MRC"),
    "NRRD cut": (cut(write_nrrd), "is cut short"),
    "NIfTI cut": (cut(nifti), "is cut short"),
    "zip cut": (cut(zarr_zip), "cannot be read as a zip file"),
    "no MRC": (
        lambda path: text(lambda _: "", "a.mrc", "x" * 2000)(path.parent) or str(path.parent / "a.mrc"),
        "as MRC",
    ),
    "no NRRD": (
        lambda path: text(lambda _: "", "a.nrrd", "x" * 99)(path.parent) or str(path.parent / "a.nrrd"),
        "NRRD",
    ),
    "no NIfTI": (
        lambda path: text(lambda _: "", "a.nii", "x" * 99)(path.parent) or str(path.parent / "a.nii"),
        "NIfTI",
    ),
    "no match": (lambda path: f"{bmp(path)}/*.png", "nothing in .* is named"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    write, message = REFUSED[name]
    with pytest.raises(VolsegError, match=message) as caught:
        open_readable(write(tmp_path / "raw"))
    assert "\n" not in str(caught.value)
    assert "pw@" not in str(caught.value)


def test_a_compressed_file_that_is_cut_is_refused_at_the_first_read(tmp_path: Path) -> None:
    volume = open_readable(cut(lambda path: nifti(path, ".nii.gz"))(tmp_path / "raw"))
    with pytest.raises(SourceError, match="damaged or cut short"):
        volume.read(WHOLE)


def test_the_voxels_of_a_detached_header_lie_beside_it(tmp_path: Path) -> None:
    header = Path(write_nrrd(tmp_path / "raw", detached=True, spacings=[1, 1, 1]))
    header.write_text(header.read_text().replace("data file: ", "data file: ../"))
    with pytest.raises(SourceError, match="not in one file beside it"):
        open_readable(str(header))


@pytest.mark.parametrize(
    ("write", "module", "extra"),
    [(n5, "tensorstore", "formats"), (precomputed, "tensorstore", "formats"), (mrc, "mrcfile", "formats"),
     (write_nrrd, "nrrd", "formats"), (nifti, "nibabel", "formats"),
     (lambda path: webknossos(path, "wkw"), "wkw", "wkw")],
)  # fmt: skip
def test_a_missing_package_is_said_with_its_install_line(
    write: Callable[[Path], str], module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = write(tmp_path / "raw")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SourceError, match=rf"{module}, .* pip install 'volseg\[{extra}\]'"):
        open_readable(location)


@pytest.mark.parametrize("write", [n5, precomputed, mrc, zarr_zip])
def test_a_source_that_is_gone_or_changed_is_refused(write: Callable[[Path], str], tmp_path: Path) -> None:
    location = Path(write(tmp_path / "raw"))
    volume: Any = open_readable(str(location))
    volume.confirm()
    shutil.rmtree(location) if location.is_dir() else location.unlink()
    with pytest.raises(SourceLostError):
        volume.confirm()


def test_labels_of_an_n5_are_read_as_stored(tmp_path: Path) -> None:
    labels = XYZ.astype(np.uint64) << 40
    volume = open_readable(n5(tmp_path, voxels=labels), LABELS)
    np.testing.assert_array_equal(volume.read(WHOLE), labels.transpose(2, 1, 0))
    with pytest.raises(SourceError, match="holds uint64; supported types: uint8"):
        open_readable(str(tmp_path))
