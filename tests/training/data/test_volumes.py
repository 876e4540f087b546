"""Labelled volumes: meaning of labels, and refusals before the first step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from volseg.blocks import Box
from volseg.config.train_tables import DataSettings, TargetSettings
from volseg.errors import ConfigError, TrainingError
from volseg.ops import boundaries, moments, weight_map
from volseg.storage import open_readable
from volseg.testing.factories import VOXEL_NM, blobs, make_volume
from volseg.training.data.labels import LabelEncoding, relabel_sequential
from volseg.training.data.statistics import training_statistics
from volseg.training.data.volumes import LabelledVolume, open_labelled, open_volumes
from volseg.training.data.weight_maps import weight_maps

if TYPE_CHECKING:
    from pathlib import Path

    from volseg.storage import Readable

SHAPE = (6, 20, 24)
WHOLE = Box.of_shape(SHAPE)
AFFINITIES = TargetSettings(kind="affinities")


def squares(shape: tuple[int, int, int] = SHAPE, side: int = 8) -> np.ndarray:
    """Adjacent square cells with different ids."""
    y, x = np.arange(shape[1]) // side, np.arange(shape[2]) // side
    ids = 1 + y[:, None] * 10 + x[None, :]
    return np.broadcast_to(ids, shape).astype(np.uint64)


def array(path: Path, voxels: np.ndarray) -> str:
    """Write a plain Zarr array of any type."""
    zarr.create_array(path, data=voxels, chunks=(2, 16, 16))
    return str(path)


def table(folder: Path, labels: np.ndarray, *, raw: np.ndarray | None = None, **more: Any) -> DataSettings:
    grey = blobs(labels.shape) if raw is None else raw
    make_volume(folder / "raw.zarr", labels.shape, voxels=grey)
    return DataSettings(**{
        "raw": str(folder / "raw.zarr"), "labels": array(folder / "labels", labels), "train": (0, 4), **more,
    })  # fmt: skip


def opened(folder: Path, labels: np.ndarray, target: TargetSettings | None = None, **more: Any) -> LabelledVolume:
    return open_labelled(table(folder, labels, **more), target or TargetSettings())


def mask(dtype: str = "uint8") -> np.ndarray:
    """255 in cells, 0 on the lines between them."""
    marked = np.full(SHAPE, 255)
    marked[:, ::8] = 0
    marked[:, :, ::8] = 0
    return marked.astype(dtype)


@pytest.mark.parametrize(("membrane", "value"), [("zero", 0), ("nonzero", 255)])
def test_masks_are_read_as_stated(tmp_path: Path, membrane: str, value: int) -> None:
    volume = opened(tmp_path, mask(), membrane=membrane)
    labels = volume.read_labels(WHOLE)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, mask() == value)
    assert volume.voxel_nm == VOXEL_NM


def test_only_confident_voxels_of_a_map_are_labels(tmp_path: Path) -> None:
    map_ = np.array([0, 76, 77, 128, 178, 179, 255, 9], np.uint8).reshape(1, 1, 8).repeat(2, axis=1)
    labels = open_readable(array(tmp_path / "map", map_), ("uint8",))
    encoding = LabelEncoding(membrane="probability", probability_thresholds=(0.3, 0.7), ignore=9)
    expected = [0, 0, -1, -1, -1, 1, 1, -1]
    np.testing.assert_array_equal(encoding.read(labels, Box.of_shape(map_.shape)), [[expected] * 2])
    np.testing.assert_array_equal(encoding.connected_cells(labels, 0), [[1, 1, -1, -1, -1, 0, 0, -1]] * 2)
    assert set(encoding.class_values(labels, Box.of_shape(map_.shape)).tolist()) == {0, 1}


@pytest.mark.parametrize("encoding", [{"membrane": "zero"}, {"membrane": "boundaries"}, {"kind": "affinities"}])
def test_ignored_voxels_are_minus_one_in_every_encoding(tmp_path: Path, encoding: dict) -> None:
    stored = squares()
    stored[:, 3:5, 3:9] = 2**64 - 1
    labels = open_readable(array(tmp_path / "a", stored), ("uint64",))
    read = LabelEncoding(**encoding, ignore=2**64 - 1).read(labels, WHOLE)
    np.testing.assert_array_equal(read == -1, stored == 2**64 - 1)
    cells = LabelEncoding(**encoding, ignore=2**64 - 1).connected_cells(labels, 1)
    np.testing.assert_array_equal(cells == -1, stored[1] == 2**64 - 1)


@settings(max_examples=30)
@given(st.tuples(*[st.integers(-9, 20)] * 3), st.tuples(*[st.integers(1, 20)] * 3), st.integers(1, 4))
def test_boundaries_of_a_box_equal_those_of_the_volume(start: tuple, size: tuple, width: int) -> None:
    ids = np.random.default_rng(0).integers(0, 3, (2, 7, 7)).repeat(4, 1).repeat(4, 2)

    class MemoryLabels:
        shape = ids.shape

        def read(self, box: Box) -> np.ndarray:
            places = [np.arange(a, b) for a, b in zip(box.start, box.stop, strict=True)]
            folded = [np.abs((p + n - 1) % (2 * n - 2) - n + 1) for p, n in zip(places, ids.shape, strict=True)]
            return ids[np.ix_(*folded)]

    box = Box(start, tuple(a + n for a, n in zip(start, size, strict=True)))
    boundaries_everywhere = np.pad(boundaries(ids, width), 60, mode="reflect")
    expected = boundaries_everywhere[tuple(slice(a + 60, b + 60) for a, b in zip(box.start, box.stop, strict=True))]
    read = LabelEncoding(membrane="boundaries", boundary_width=width).read(MemoryLabels(), box)
    np.testing.assert_array_equal(read, expected)


@given(st.lists(st.sampled_from([0, 1, 5, 255, 2**31, 2**63, 2**64 - 1]), min_size=1), st.sampled_from([None, 5, 0]))
def test_relabelled_ids_are_sequential_and_distinct(values: list[int], ignore: int | None) -> None:
    stored = np.array(values, np.uint64)
    local = relabel_sequential(stored, ignore)
    assert local.dtype == np.int32
    known = [value for value in values if value != ignore]
    numbers = {0: 0} | {value: n for n, value in enumerate(sorted(set(known) - {0}), start=1)}
    assert local.tolist() == [-1 if value == ignore else numbers[value] for value in values]


def test_cells_of_a_mask_are_separated_by_membrane(tmp_path: Path) -> None:
    volume = opened(tmp_path, mask(), validation=(4, 6))
    (sections,) = volume.read_validation()
    assert [part.dtype.name for part in (sections.raw, sections.labels, sections.cell_ids)] == [
        "uint8",
        "int32",
        "int32",
    ]
    np.testing.assert_array_equal(sections.raw, blobs(SHAPE)[4:])
    np.testing.assert_array_equal(sections.cell_ids == 0, sections.labels == 1)
    assert len(np.unique(sections.cell_ids[0])) == 1 + 3 * 3


@pytest.mark.parametrize("target", [TargetSettings(), AFFINITIES])
def test_adjacent_cells_are_separate_and_disconnected_ones_are_two(tmp_path: Path, target: TargetSettings) -> None:
    ids = np.zeros((3, 9, 13), np.uint64)
    ids[:, 0:8, 0:4] = 2**40
    ids[:, 0:8, 4:8] = 7
    ids[:, 0:8, 9:] = 7
    volume = opened(tmp_path, ids, target, train=(0, 2), validation=(2, 3), membrane="boundaries")
    truth = volume.read_validation()[0].cell_ids[0]
    assert len({int(truth[4, x]) for x in (1, 6, 11)} - {0}) == 3
    assert (truth[8] == 0).all()
    border = truth[4, 3:5]
    assert (border == 0).all() if target.kind == "membrane" else (border > 0).all()


FLAT = np.full(SHAPE, 255, np.uint8)
REFUSED: list[tuple[dict[str, Any], TargetSettings, np.ndarray, str]] = [
    ({"train": (0, 7)}, TargetSettings(), mask(), r"data.train \[0, 7\] is not in a volume of 6 sections"),
    ({"train": (2, 2)}, TargetSettings(), mask(), r"data.train \[2, 2\] is not in"),
    ({"validation": [(4, 5), (-1, 2)]}, TargetSettings(), mask(), r"data.validation \[-1, 2\] is not in"),
    ({"train": [(0, 2), (1, 3)]}, TargetSettings(), mask(), r"data.train lists sections twice: \[0, 2\] and \[1, 3\]"),
    ({"validation": (3, 6)}, TargetSettings(), mask(), r"data.train \[0, 4\] and data.validation \[3, 6\] share"),
    ({}, TargetSettings(), FLAT, r"are 0% membrane in all sections of data.train \[\[0, 4\]\]; check them"),
    ({"membrane": "nonzero"}, TargetSettings(), FLAT, "are 100% membrane in all sections of data.train"),
    ({"ignore": 255}, TargetSettings(), FLAT, "data.ignore = 255 in all sections of data.train"),
    (
        {"membrane": "boundaries"},
        TargetSettings(),
        mask(),
        'are 0 and 255 only, but data.membrane = "boundaries" need',
    ),
    ({}, AFFINITIES, mask(), "are 0 and 255 only, but affinities need ids"),
    ({}, AFFINITIES, mask("bool"), "are 0 and 1 only, but affinities need ids"),
    ({}, AFFINITIES, FLAT.astype(np.uint16), "are 0 and 255 only, but affinities need ids"),
    (
        {},
        TargetSettings(kind="affinities", offsets=((0, 0, -1), (-4, 0, 0))),
        squares(),
        r"target.offsets \[-4, 0, 0\] does not fit into the \(4, 20, 24\)",
    ),
]


@pytest.mark.parametrize(("more", "target", "labels", "message"), REFUSED)
def test_unusable_data_is_refused(tmp_path, more, target, labels, message) -> None:
    with pytest.raises(ConfigError, match=message):
        opened(tmp_path, labels, target, **more)


def test_validation_sections_of_one_class_are_refused_too(tmp_path: Path) -> None:
    labels = mask()
    labels[4:] = 0
    with pytest.raises(ConfigError, match=r"are 100% membrane in all sections of data.validation \[\[4, 6\]\]"):
        opened(tmp_path, labels, validation=(4, 6))


def test_different_shapes_and_missing_voxel_sizes_are_refused(tmp_path: Path) -> None:
    data = table(tmp_path, mask())
    with pytest.raises(
        ConfigError, match=r"raw .* is \(6, 20, 24\), labels .* are \(5, 20, 24\); the shapes must be equal"
    ):
        open_labelled(data.model_copy(update={"labels": array(tmp_path / "b", mask()[:5])}), TargetSettings())
    plain = data.model_copy(update={"raw": array(tmp_path / "c", blobs(SHAPE))})
    with pytest.raises(ConfigError, match=r"states no voxel size; give data.voxel_nm = \[Z, Y, X\]"):
        open_labelled(plain, TargetSettings())
    given_nm = plain.model_copy(update={"voxel_nm": (50.0, 4.0, 4.0)})
    assert open_labelled(given_nm, TargetSettings()).voxel_nm == (50.0, 4.0, 4.0)


def test_a_table_may_not_validate_on_training_sections_of_another(tmp_path: Path) -> None:
    data = table(tmp_path, mask(), validation=(4, 6))
    other = data.model_copy(update={"train": ((4, 5),), "validation": ()})
    with pytest.raises(ConfigError, match=r"data.train \[4, 5\] and data.validation \[4, 6\] share sections"):
        open_volumes([data, other], TargetSettings())
    assert len(open_volumes([data, other.model_copy(update={"train": ((0, 4),)})], TargetSettings())) == 2
    coarse = other.model_copy(update={"train": ((0, 4),), "voxel_nm": (30.0, 12.0, 12.0)})
    with pytest.raises(ConfigError, match=r"voxels of .*, but a model has one voxel size; resample one, or set"):
        open_volumes([data, coarse], TargetSettings())


def test_labels_are_read_until_both_classes_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = table(tmp_path, mask())
    read: list[Box] = []
    original = LabelEncoding.read

    def recording_read(encoding: LabelEncoding, labels: Readable, box: Box) -> np.ndarray:
        read.append(box)
        return original(encoding, labels, box)

    monkeypatch.setattr(LabelEncoding, "read", recording_read)
    open_labelled(data, TargetSettings())
    assert [box.start[0] for box in read] == [0]


def test_statistics_are_those_of_the_training_sections(tmp_path: Path) -> None:
    volume = opened(tmp_path, mask(), train=[(0, 3), (4, 5)], validation=(5, 6))
    raw = blobs(SHAPE)
    progress: list[tuple[int, int]] = []
    by_section = training_statistics([volume], "section", lambda *done: progress.append(done))
    ((first, second),) = by_section.by_range
    np.testing.assert_allclose([*first, *second], [moments(raw[z]) for z in (0, 1, 2, 4)])
    expected = moments(raw[[0, 1, 2, 4]])
    assert by_section.normalization.training == pytest.approx(expected)
    assert progress[-1] == (4, 4)
    modes: list[Any] = ["volume", "fixed"]
    for mode in modes:
        (ranges,) = training_statistics([volume], mode).by_range
        assert [statistics for (statistics,) in ranges] == [pytest.approx(expected)] * 2


def test_each_volume_has_its_own_constants_unless_they_are_fixed(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    grey = blobs(SHAPE), blobs(SHAPE, seed=1) // 2
    volumes = [opened(tmp_path / name, mask(), raw=raw) for name, raw in zip((".", "b"), grey, strict=True)]
    expected = moments(np.concatenate([raw[:4] for raw in grey]))
    separate = training_statistics(volumes, "volume")
    assert separate.normalization.training == pytest.approx(expected)
    for ((pair,),), raw in zip(separate.by_range, grey, strict=True):
        assert pair == pytest.approx(moments(raw[:4]))
    for ((pair,),) in training_statistics(volumes, "fixed").by_range:
        assert pair == pytest.approx(expected)


def test_fixed_constants_for_two_types_and_nan_are_refused(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    floats = blobs(SHAPE, dtype="float32")
    volumes = [opened(tmp_path, mask()), opened(tmp_path / "b", mask(), raw=floats)]
    with pytest.raises(ConfigError, match="raw volumes are float32 and uint8"):
        training_statistics(volumes, "fixed")
    assert training_statistics(volumes, "section").normalization.dtype == "uint8"
    (tmp_path / "c").mkdir()
    floats[3, :, 5] = np.nan
    broken = opened(tmp_path / "c", mask(), raw=floats)
    with pytest.raises(TrainingError, match="raw.zarr/0 contains NaN or infinity in section 3; repair it"):
        training_statistics([broken], "section")


def test_weight_maps_are_computed_once_for_each_section(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    moving = np.stack([np.roll(section, 2 * z, axis=0) for z, section in enumerate(mask())])
    volume = opened(tmp_path, moving, train=[(0, 1), (3, 5)])
    progress: list[tuple[int, int]] = []
    for _ in range(2):
        maps = weight_maps(volume, 10.0, 5.0, lambda *done: progress.append(done))
        for z in (0, 3, 4):
            expected = np.pad(
                weight_map(volume.encoding.connected_cells(volume.labels, z), w0=10.0, sigma=5.0), 3, mode="reflect"
            )
            read = maps.read(Box((z, -3, -3), (z + 1, SHAPE[1] + 3, SHAPE[2] + 3)))
            assert read.dtype == np.float32
            np.testing.assert_allclose(read[0], expected, rtol=1e-3)
    assert progress == [(1, 3), (2, 3), (3, 3)]
    weight_maps(volume, 10.0, 4.0, lambda *done: progress.append(done))
    assert len(progress) == 6


def test_two_paths_to_one_stack_are_one_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tifffile

    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("raw.tif", blobs(SHAPE), photometric="minisblack")
    data = table(tmp_path, mask()).model_copy(update={"raw": "raw.tif", "voxel_nm": VOXEL_NM})
    other = data.model_copy(update={"raw": "./raw.tif", "train": ((4, 5),), "validation": ((0, 1),)})
    with pytest.raises(ConfigError, match="share sections"):
        open_volumes([data, other], TargetSettings())


@pytest.mark.parametrize(
    ("encoding", "cells"),
    [
        ({"membrane": "zero"}, [1, 1, 2, 2, 0, 3]),
        ({"membrane": "nonzero"}, [0, 0, 0, 0, 1, 0]),
        ({"membrane": "boundaries"}, [1, 0, 0, 2, 0, 3]),
        ({"kind": "affinities"}, [1, 1, 2, 2, 0, 3]),
    ],
)
def test_cells_with_adjacent_ids_are_separate(tmp_path: Path, encoding: dict, cells: list[int]) -> None:
    ids = np.array([7, 7, 9, 9, 0, 7], np.uint16).reshape(1, 1, 6).repeat(3, axis=1)
    labels = open_readable(array(tmp_path / "ids", ids), ("uint16",))
    np.testing.assert_array_equal(LabelEncoding(**encoding).connected_cells(labels, 0), [cells] * 3)
