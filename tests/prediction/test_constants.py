"""Law 3: constants come from whole sections, alike in every form, and are frozen beside the record."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest
from click.testing import CliRunner

import volseg
from volseg.blocks import Box
from volseg.cli.main import main
from volseg.config import PredictConfig
from volseg.prediction.prepare import prepare
from volseg.prediction.run import execute
from volseg.storage import open_target, open_volume, read_record, read_table, slab_statistics
from volseg.testing.doubles import NoteRecorder
from volseg.testing.factories import blobs, make_model, make_volume, read_volume

if TYPE_CHECKING:
    from collections.abc import Sequence

CASES = Path(__file__).parents[3] / "shared" / "cases" / "small"
OPTIONS: dict[str, Any] = {"precision": "float32", "cluster": "serial", "halo": (0, 8, 8), "block": (1, 64, 64)}


DEEP: dict[str, Any] = {"width": 4, "depth": 1, "padded": True, "kernel": [3, 3, 3], "pool": [2, 2, 2]}


def tables_of(target: Path) -> list[np.ndarray]:
    """The constants of each network of a finished run."""
    folder = open_target(target).journal
    return [read_table(folder, entry.statistics) for entry in read_record(target).models]


def moments_of(voxels: np.ndarray) -> tuple[float, float]:
    tissue = voxels[voxels != 0].astype(float)
    return tissue.mean(), tissue.std()


def run(raw: Path, target: Path, model: Path, **options: Any) -> Sequence[str]:
    """Predict, and return the notes."""
    notes = NoteRecorder()
    config = PredictConfig(source=str(raw), target=str(target), model=str(model), **{**OPTIONS, **options})
    spec, recorded = prepare(config)
    execute(spec, recorded, notes)
    return notes.lines


def test_an_island_between_what_was_sampled_gets_the_map_of_its_tissue_alone(small_model: Path, tmp_path: Path) -> None:
    tissue, sea = blobs((1, 192, 192)), np.zeros((1, 1408, 1408), np.uint8)
    sea[:, 192:384, 192:384] = tissue
    run(make_volume(tmp_path / "tissue.zarr", tissue.shape, voxels=tissue), tmp_path / "a.zarr", small_model)
    raw = make_volume(tmp_path / "sea.zarr", sea.shape, voxels=sea, chunk=(1, 64, 64))
    run(raw, tmp_path / "b.zarr", small_model)
    np.testing.assert_array_equal(tables_of(tmp_path / "b.zarr"), tables_of(tmp_path / "a.zarr"))
    inside = (slice(None), slice(64, 128), slice(64, 128))
    island = read_volume(tmp_path / "b.zarr")[:, 192:384, 192:384]
    np.testing.assert_array_equal(island[inside], read_volume(tmp_path / "a.zarr")[inside])
    assert island.any()


@pytest.mark.parametrize("mode", ["section", "volume"])
def test_run_and_lazy_array_have_the_same_constants(tmp_path: Path, mode: str) -> None:
    """Above 1024 voxels a side, and with fill that is not 0."""
    model = make_model(tmp_path / "m.safetensors", mode=mode)
    voxels = np.minimum(blobs((2, 1152, 96)), 254)
    voxels[1, :300] = 255
    raw = make_volume(tmp_path / "raw.zarr", voxels.shape, voxels=voxels, chunk=(1, 64, 64))
    run(raw, tmp_path / "map.zarr", model, halo="exact", block=(1, 1152, 96))
    lazy = volseg.membrane_probability(da.from_array(voxels, (1, 1152, 96)), str(model), halo="exact")
    written = read_volume(tmp_path / "map.zarr")
    assert np.abs(np.rint(lazy.compute() * 255) - written).max() <= 1
    (table,) = tables_of(tmp_path / "map.zarr")
    parts = [voxels[0], voxels[1, 300:][None]] if mode == "section" else [np.concatenate([voxels[0], voxels[1, 300:]])]
    np.testing.assert_allclose(table, [moments_of(part) for part in parts])
    assert read_record(tmp_path / "map.zarr").source.fills == (255.0,)


def test_region_and_mask_say_which_voxels_count(small_model: Path, tmp_path: Path) -> None:
    voxels = blobs((4, 128, 128))
    raw = make_volume(tmp_path / "raw.zarr", voxels.shape, voxels=voxels, chunk=(1, 64, 64))
    run(raw, tmp_path / "roi.zarr", small_model, roi="1:3,0:64,64:128")
    (table,) = tables_of(tmp_path / "roi.zarr")
    np.testing.assert_allclose(table[1:3], [moments_of(section) for section in voxels[1:3, :64, 64:]])
    assert np.isnan(table[[0, 3]]).all(), "no block needs them"
    mask = np.zeros((4, 32, 32), np.uint8)
    mask[:, 3:20, 5:9] = 1
    make_volume(tmp_path / "mask.zarr", mask.shape, voxels=mask, chunk=(1, 32, 32))
    run(raw, tmp_path / "masked.zarr", small_model, mask=str(tmp_path / "mask.zarr"))
    (table,) = tables_of(tmp_path / "masked.zarr")
    kept = np.zeros((128, 128), bool)
    kept[:, :64] = True  # the blocks that the mask keeps
    np.testing.assert_allclose(table, [moments_of(section * kept) for section in voxels])


@pytest.mark.parametrize("block", [(1, 64, 64), (3, 64, 96)])
def test_a_section_of_nan_is_0_in_the_map_and_its_neighbours_are_as_alone(
    small_model: Path, tmp_path: Path, block: Any
) -> None:
    voxels = blobs((3, 70, 90), dtype="float32")
    run(
        make_volume(tmp_path / "whole.zarr", voxels.shape, voxels=voxels), tmp_path / "a.zarr", small_model, block=block
    )
    voxels[1] = np.nan
    notes = run(
        make_volume(tmp_path / "n.zarr", voxels.shape, voxels=voxels), tmp_path / "b.zarr", small_model, block=block
    )
    assert "1 of 3 sections holds no tissue; the map is 0 there" in notes
    whole, without = read_volume(tmp_path / "a.zarr"), read_volume(tmp_path / "b.zarr")
    assert not without[1].any()
    np.testing.assert_array_equal(without[[0, 2]], whole[[0, 2]])
    assert read_record(tmp_path / "b.zarr").source.empty_sections == 1


def test_what_lies_outside_the_mask_fails_no_block_inside(small_model: Path, tmp_path: Path) -> None:
    voxels = blobs((1, 128, 128), dtype="float32")
    voxels[0, 90, 90] = np.nan
    raw = make_volume(tmp_path / "raw.zarr", voxels.shape, voxels=voxels, chunk=(1, 64, 64))
    words = ["predict", str(raw), str(tmp_path / "m.zarr"), "--model", str(small_model), "--cluster", "serial"]
    refused = CliRunner().invoke(main, words)
    assert (refused.exit_code, "(0, 90, 90)" in refused.stderr, "--mask" in refused.stderr) == (1, True, True)
    mask = np.ones((1, 128, 128), np.uint8)
    mask[:, 80:100, 80:100] = 0
    make_volume(tmp_path / "mask.zarr", mask.shape, voxels=mask)
    assert CliRunner().invoke(main, [*words, "--mask", str(tmp_path / "mask.zarr")]).exit_code == 0


@pytest.mark.parametrize(("roi", "tile"), [("20:24,:,:", (8, 32, 32)), ("21:22,:,:", None)])
def test_all_sections_that_a_tile_may_see_have_constants(tmp_path: Path, roi: str, tile: Any) -> None:
    """A tile of a 3-D network is aligned to its stride, and may be deeper than the block."""
    model = make_model(tmp_path / "deep.safetensors", "unet", DEEP)
    raw = make_volume(tmp_path / "raw.zarr", (48, 32, 32), chunk=(1, 32, 32))
    more: dict[str, Any] = {"block": (4, 32, 32), "shard": (1, 32, 32), "tile": tile, "roi": roi, "halo": "exact"}
    options = {"precision": "float32", "cluster": "serial", "model": str(model), **more}
    assert volseg.predict(str(raw), str(tmp_path / "m.zarr"), **options).failed == {}


def test_nan_around_the_tissue_is_stated(small_model: Path, tmp_path: Path) -> None:
    voxels = blobs((2, 128, 128), dtype="float32")
    voxels[1, :, 100:] = np.nan
    notes = run(make_volume(tmp_path / "raw.zarr", voxels.shape, voxels=voxels), tmp_path / "m.zarr", small_model)
    assert "1 section of 2 with NaN or infinity around the tissue: 0 there" in notes
    assert read_record(tmp_path / "m.zarr").source.not_finite_sections == 1
    assert not read_volume(tmp_path / "m.zarr")[1, :, 100:].any()


def test_nan_in_tissue_at_the_edge_of_a_region_is_refused(small_model: Path, tmp_path: Path) -> None:
    """What was not read is not taken for the outside."""
    voxels = blobs((1, 256, 256), dtype="float32")
    voxels[0, 70, 70] = np.nan
    raw = make_volume(tmp_path / "raw.zarr", voxels.shape, voxels=voxels)
    with pytest.raises(volseg.SourceError, match=r"midst of tissue, .* \(0, 70, 70\)"):
        run(raw, tmp_path / "m.zarr", small_model, roi=":,64:128,64:128")


def test_a_resume_reads_the_frozen_constants_and_not_the_volume(
    small_model: Path, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import volseg.prediction.constants as constants

    run(raw, tmp_path / "m.zarr", small_model)
    monkeypatch.setattr(constants, "slab_statistics", None)
    run(raw, tmp_path / "m.zarr", small_model, resume=True)


def test_lost_constants_are_computed_again_and_an_edited_source_is_refused(
    small_model: Path, raw: Path, tmp_path: Path
) -> None:
    target = tmp_path / "m.zarr"
    run(raw, target, small_model)
    (file,) = open_target(target).journal.glob("statistics-*.npy")
    before = file.read_bytes()
    file.unlink()
    run(raw, target, small_model, resume=True)
    assert file.read_bytes() == before
    file.write_bytes(before[:-8] + b"\0" * 8)
    run(raw, target, small_model, resume=True)
    assert file.read_bytes() == before
    file.unlink()
    voxels = open_volume(str(raw)).read(Box.of_shape((6, 70, 90))).copy()
    voxels[5, 69, 89] ^= 1
    shutil.rmtree(raw)
    make_volume(raw, voxels.shape, voxels=voxels)
    with pytest.raises(volseg.ResumeError, match="another source"):
        run(raw, target, small_model, resume=True)


def test_a_source_with_other_times_is_measured_again_and_one_that_was_edited_is_refused(
    small_model: Path, tmp_path: Path
) -> None:
    voxels = blobs((2, 300, 300))
    raw, target = (
        make_volume(tmp_path / "raw.zarr", voxels.shape, voxels=voxels, chunk=(1, 50, 50)),
        tmp_path / "m.zarr",
    )
    run(raw, target, small_model, block=(1, 320, 320))
    covered = "shape, type, 16 windows, modification marks, mean and deviation of each section"
    assert read_record(target).source.covered == covered
    (chunk,) = raw.rglob("c/0/0/0")
    os.utime(chunk, ns=(0, 2**62))
    notes = run(raw, target, small_model, resume=True, block=(1, 320, 320))
    assert any("modification marks of the source differ (" in note for note in notes)
    voxels[0, 3, 3] ^= 1  # outside the windows of the fingerprint
    shutil.rmtree(raw)
    make_volume(raw, voxels.shape, voxels=voxels, chunk=(1, 50, 50))
    with pytest.raises(volseg.ResumeError, match=r"another source .*raw.zarr.* other grey values"):
        run(raw, target, small_model, resume=True, block=(1, 320, 320))


def test_without_statistics_a_source_with_other_times_is_refused(tmp_path: Path, raw: Path) -> None:
    model = make_model(tmp_path / "fixed.safetensors", mode="fixed")
    run(raw, tmp_path / "m.zarr", model)
    run(raw, tmp_path / "m.zarr", model, resume=True)
    os.utime(next(path for path in raw.rglob("c/*/*/*")), ns=(0, 2**62))
    with pytest.raises(volseg.ResumeError, match="may have been edited .* restore its times"):
        run(raw, tmp_path / "m.zarr", model, resume=True)


@pytest.mark.parametrize("chunk", [(64, 1024, 1024), (1, 512, 512), (128, 128, 128), (1, 1, 30_000), (3, 700, 900)])
def test_windows_of_huge_sections_are_small_and_decode_chunks_once(chunk: Any) -> None:
    import volseg.storage.statistics as statistics

    volume: Any = SimpleNamespace(shape=(64, 30_000, 30_000), chunk=chunk, dtype="uint8")
    windows = list(statistics._windows(volume, (0, min(chunk[0], 64)), Box.of_shape(volume.shape)))
    assert sum(box.voxels for box in windows) == min(chunk[0], 64) * 30_000**2
    assert max(box.voxels for box in windows) <= max(statistics._WINDOW_BYTES, 64 * 1024 * 1024)
    if 700 not in chunk:
        assert all(a % c == 0 for box in windows for a, c in zip(box.start[1:], chunk[1:], strict=True))


def test_windows_do_not_change_the_constants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill that is found in the last window does not count in the first one."""
    import volseg.storage.statistics as statistics

    voxels = blobs((3, 300, 70))
    voxels[:, 5:20, 5:20] = 9
    voxels[:, 192:256, :64] = 9
    volume = open_volume(str(make_volume(tmp_path / "raw.zarr", voxels.shape, voxels=voxels, chunk=(2, 32, 70))))
    whole = slab_statistics(volume, (0, 2), ("section",), Box.of_shape(volume.shape))
    monkeypatch.setattr(statistics, "_WINDOW_BYTES", 1)
    assert slab_statistics(volume, (0, 2), ("section",), Box.of_shape(volume.shape)) == whole
    sideways = open_volume(str(make_volume(tmp_path / "x.zarr", (3, 70, 300), voxels=voxels.swapaxes(1, 2))))
    assert slab_statistics(sideways, (0, 2), ("section",), Box.of_shape(sideways.shape)) == whole
    assert whole.fills == (9.0,)
    counted = voxels[:2].astype(float)
    assert [m.voxels for m in whole.moments[0]] == [int(((s != 0) & (s != 9)).sum()) for s in counted]


@pytest.mark.skipif(not (CASES / "island.zarr").is_dir(), reason="no ../shared/cases")
def test_the_island_of_the_cases_gets_the_map_of_its_tissue_alone(small_model: Path, tmp_path: Path) -> None:
    place = (slice(None), slice(140, 540), slice(140, 540))
    sea = open_volume(str(CASES / "island.zarr"))
    tissue = sea.read(Box((0, 140, 140), (1, 540, 540)))
    options: dict[str, Any] = {"halo": "exact", "block": (1, 512, 512), "ignore_voxel_size": True}
    alone = make_volume(tmp_path / "tissue.zarr", tissue.shape, voxels=tissue)
    run(alone, tmp_path / "a.zarr", small_model, **options)
    run(CASES / "island.zarr", tmp_path / "b.zarr", small_model, **options)
    np.testing.assert_array_equal(tables_of(tmp_path / "b.zarr"), tables_of(tmp_path / "a.zarr"))
    island, inside = read_volume(tmp_path / "b.zarr")[place], (slice(None), slice(64, -64), slice(64, -64))
    np.testing.assert_array_equal(island[inside], read_volume(tmp_path / "a.zarr")[inside])
    assert island.any()
