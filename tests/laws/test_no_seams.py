"""Law 1: blocks leave no seams, whatever the block, the workers and the cluster."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import volseg
from volseg.blocks import BlockGrid, Tiling
from volseg.cluster import NullProgress
from volseg.config import PredictConfig
from volseg.errors import ConfigError, GridError
from volseg.inference import Engine, open_predictor
from volseg.inference.optimize.optimize import DTYPES, optimize
from volseg.models import read_card, registry
from volseg.models.model import load_model_file
from volseg.ops import Grey
from volseg.pipeline import BlockPipeline, EnsembleMember, Estimate, PlanRequest, plan_run, process_block
from volseg.prediction.prepare import prepare
from volseg.prediction.run import execute
from volseg.storage import open_volume
from volseg.testing.doubles import address_of
from volseg.testing.factories import (
    blobs,
    constants_of,
    create_target_like,
    float32_tolerance,
    make_model,
    make_volume,
    read_volume,
    rounding_tolerance,
    whole_pass,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "fusionnet": ("fusionnet", {"width": 4, "depth": 3}),
    "unet-padded": ("unet", {"width": 4, "depth": 4, "padded": True, "batch_norm": True}),
    "unet-unpadded": ("unet", {"width": 4, "depth": 4}),
}
SHAPE = (3, 70, 131)
"""A multiple of nothing, and smaller than a FusionNet's reach of 245."""
ANISOTROPIC = {"kernel": [[1, 3, 3], [3, 3, 3], [3, 3, 3]], "pool": [[1, 2, 2], [2, 2, 2]], "depth": 2}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "fcn32s": ("fcn32s", {"width": 2}),
    "fcn16s": ("fcn16s", {"width": 2}),
    "fcn8s": ("fcn8s", {"width": 2}),
    "fcn8s-padded": ("fcn8s", {"width": 2, "padded": True}),
    "deconvnet": ("deconvnet", {"width": 1}),
    "sliding_window": ("sliding_window", {"width": 3, "hidden": 5}),
    "fusionnet_chain": ("fusionnet_chain", {"width": 3, "depth": 2}),
    "unet-3-sections": ("unet", {"width": 3, "depth": 2, "in_channels": 3}),
    "fusionnet-5-sections": ("fusionnet", {"width": 3, "depth": 2, "in_channels": 5}),
    "fusionnet-3d": ("fusionnet", {"width": 2, "depth": 1, "kernel": [3, 3, 3], "pool": [2, 2, 2]}),
    "fusionnet-3d-anisotropic": (
        "fusionnet",
        {"width": 2, "depth": 1, "kernel": [[1, 3, 3], [3, 3, 3]], "pool": [[1, 2, 2]]},
    ),
    "unet-3d-anisotropic": ("unet", {"width": 2, "padded": True, "batch_norm": True, **ANISOTROPIC}),
    "unet-3d-unpadded": ("unet", {"width": 2, "depth": 1, "kernel": [3, 3, 3], "pool": [2, 2, 2]}),
}
EIGHT = [(quarters, flipped) for flipped in (False, True) for quarters in range(4)]
BLOCKS = [(1, 32, 48), (2, 64, 64), (3, 80, 144)]


@pytest.fixture(scope="module", params=list(NETWORKS))
def model_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind, arguments = NETWORKS[request.param]
    return make_model(tmp_path_factory.mktemp("model") / f"{request.param}.safetensors", kind, arguments)


@pytest.fixture(scope="module")
def raw_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_volume(tmp_path_factory.mktemp("raw") / "raw.zarr", SHAPE)


@pytest.fixture(scope="module")
def truth(model_file: Path, raw_path: Path) -> np.ndarray:
    return whole_pass(load_model_file(model_file), read_volume(raw_path))


@pytest.fixture(scope="module")
def tolerance(truth: np.ndarray, model_file: Path, raw_path: Path) -> float:
    return float32_tolerance(truth, load_model_file(model_file), read_volume(raw_path))


def bytes_agree(written: np.ndarray, truth: np.ndarray, tolerance: float) -> bool:
    """Whether bytes are the nearest to probabilities that are off by no more than the tolerance."""
    return bool(np.abs(written - truth * 255).max() <= 0.5 + 255 * tolerance)


class Keep:
    """A sink that keeps probabilities as they come, before they become bytes."""

    def __init__(self, predict: Any, shape: tuple[int, ...] = SHAPE) -> None:
        self.whole = np.full(shape, np.nan, np.float32)
        self._predict = predict

    def __call__(self, grey: Any, write_box: Any) -> Iterator[Estimate]:
        for estimate in self._predict(grey, write_box):
            self.whole[write_box.slices] = estimate.probability[0]
            yield estimate

    def write(self, box: Any, volumes: Any) -> tuple[str, int, str]:
        return "", 0, ""

    def clear(self, box: Any) -> None:
        raise AssertionError("no block of these volumes is empty")


def in_blocks(
    model_file: Path, raw_path: Path, block: tuple[int, int, int], parts: int = 0, batch: int = 1
) -> np.ndarray:
    """Probabilities of the whole volume, block by block, in float32."""
    volume, header = open_volume(str(raw_path)), read_card(model_file)
    plan = plan_run(volume.shape, volume.chunk, (header.card.footprint,), PlanRequest(block=block))
    tiling = list(itertools.islice(plan.tilings(), parts + 1))[-1]
    predict = open_predictor(str(model_file), header.digest, tiling, Engine("cpu", "float32", batch, 1))
    keep = Keep(predict, volume.shape)
    statistics = constants_of(volume, header.card.normalization)
    pipeline = BlockPipeline(plan.grid, (EnsembleMember(tiling, statistics, keep),), volume, keep)
    for number in plan.grid.numbers():
        process_block(number, pipeline)
    return keep.whole


@pytest.mark.parametrize("block", BLOCKS)
def test_any_blocking_equals_one_pass_over_the_whole_mirrored_volume(
    model_file, raw_path, truth, tolerance, block
) -> None:
    np.testing.assert_allclose(in_blocks(model_file, raw_path, block), truth, rtol=0, atol=tolerance)


def test_several_tiles_a_block_and_several_tiles_a_batch_change_nothing(model_file, raw_path, truth, tolerance) -> None:
    made = in_blocks(model_file, raw_path, (2, 64, 128), parts=2, batch=3)
    np.testing.assert_allclose(made, truth, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("joined", "block"), [*((False, block) for block in BLOCKS), (True, BLOCKS[1])])
def test_any_cluster_writes_the_whole_pass(  # noqa: PLR0913 - four of them are one network and its truth
    model_file, raw_path, truth, tolerance, two_workers, tmp_path, joined, block
) -> None:
    """Those that a run starts itself give the bytes of a serial run, as is shown below."""
    summary = volseg.predict(
        str(raw_path), str(tmp_path / "p.zarr"), model=str(model_file), block=block, precision="float32", halo="exact",
        cluster=address_of(two_workers) if joined else "serial",
    )  # fmt: skip
    assert not summary.failed
    assert bytes_agree(read_volume(tmp_path / "p.zarr"), truth, tolerance)


def test_the_lazy_form_equals_the_whole_pass(model_file, raw_path, truth, tolerance) -> None:
    import dask.array as da

    raw = da.from_array(read_volume(raw_path), chunks=(2, 33, 50))
    lazy = volseg.membrane_probability(raw, str(model_file))
    assert (lazy.shape, lazy.dtype) == (SHAPE, np.float32)
    np.testing.assert_allclose(lazy.compute(), truth, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["unet-3-sections", "unet-3d-anisotropic", "unet-3d-unpadded"])
def test_the_lazy_form_of_networks_that_see_several_sections_does_too(name: str, tmp_path: Path) -> None:
    import dask.array as da

    raw = blobs((5, 41, 67))
    path = awake_model(tmp_path, *OTHERS[name], raw)
    lazy = volseg.membrane_probability(da.from_array(raw, chunks=(3, 33, 40)), str(path))
    model = load_model_file(path)
    truth = whole_pass(model, raw)
    np.testing.assert_allclose(lazy.compute(), truth, rtol=0, atol=float32_tolerance(truth, model, raw))


def test_the_lazy_form_needs_a_class_called_membrane(tmp_path: Path) -> None:
    import dask.array as da

    arguments = {"width": 2, "depth": 1, "out_channels": 2}
    path = make_model(tmp_path / "m.safetensors", "unet", arguments, classes=("inside", "outside"))
    with pytest.raises(ConfigError, match="has no class 'membrane'; choose from inside, outside"):
        volseg.membrane_probability(da.zeros((2, 20, 20), dtype=np.uint8), str(path))


def test_a_halo_far_below_the_reach_does_show(model_file, raw_path, truth, tolerance) -> None:
    """Else the tests above would pass with any halo."""
    volume, header = open_volume(str(raw_path)), read_card(model_file)
    footprint = header.card.footprint
    if not footprint.padded:
        with pytest.raises(GridError, match="below the margin"):
            Tiling(footprint, (1, 32, 32), (0, 0, 0))
        return
    tiling = Tiling(footprint, (1, 32, 32), (0, 0, 0))
    keep = Keep(open_predictor(str(model_file), header.digest, tiling, Engine("cpu", "float32", 1, 1)))
    grid = BlockGrid.over(SHAPE, (1, 32, 32), (1, 32, 32))
    statistics = constants_of(volume, header.card.normalization)
    pipeline = BlockPipeline(grid, (EnsembleMember(tiling, statistics, keep),), volume, keep)
    for number in grid.numbers():
        process_block(number, pipeline)
    assert np.abs(keep.whole - truth).max() > max(1e-3, 10 * tolerance)


# bfloat16 is slow where it is emulated: larger blocks compute less halo.
@pytest.mark.parametrize(("precision", "side"), [("float32", 32), pytest.param("bfloat16", 64, marks=pytest.mark.slow)])
def test_within_one_record_bytes_are_equal(
    raw_path: Path, small_model: Path, tmp_path: Path, precision: str, side: int
) -> None:
    """Other workers, other order, same record: the same bytes, shard files and all."""
    results: list[dict[Path, bytes]] = []
    runs = [("local", 2, False), ("serial", None, True)]
    for run, (cluster, workers, backwards) in enumerate(runs + [("local", 1, True)] * (precision == "float32")):
        target = tmp_path / f"{run}.zarr"
        config = PredictConfig(
            source=str(raw_path), target=str(target), model=str(small_model), block=(1, side, side),
            precision=precision, cluster=cluster, workers=workers, resume=run > 0,
        )  # fmt: skip
        if run:
            create_target_like(target, tmp_path / "0.zarr")
        spec, recorded = prepare(config)
        numbers = list(spec.plan.grid.numbers())
        summary = execute(spec, recorded, NullProgress(), reversed(numbers) if backwards else numbers)
        assert summary.done == len(numbers)
        results.append({p.relative_to(target): p.read_bytes() for p in (target / "0" / "c").rglob("*") if p.is_file()})
    assert all(result == results[0] for result in results)
    assert len(results[0]) == BlockGrid.over(SHAPE, (1, side, side), (1, side, side)).count


def test_statistics_and_not_the_block_decide_the_input(raw_path: Path, small_model: Path) -> None:
    """Law 3: the same voxels with other constants give another result; with the same constants, the same."""
    volume, header = open_volume(str(raw_path)), read_card(small_model)
    plan = plan_run(volume.shape, volume.chunk, (header.card.footprint,), PlanRequest(block=(3, 64, 64)))
    tiling = next(plan.tilings())
    keep = Keep(open_predictor(str(small_model), header.digest, tiling, Engine("cpu", "float32", 1, 1)))
    pipeline = BlockPipeline(plan.grid, (EnsembleMember(tiling, ((128.0, 60.0),), keep),), volume, keep)
    process_block(0, pipeline)
    first = keep.whole.copy()
    process_block(0, replace(pipeline, members=(EnsembleMember(tiling, ((90.0, 30.0),), keep),)))
    assert np.nanmax(np.abs(keep.whole - first)) > 1e-3


def test_batch_norm_uses_the_trainings_statistics(small_model: Path) -> None:
    """Law 3: a tile's neighbours in its batch do not colour it."""
    header = read_card(small_model)
    tiling = Tiling(header.card.footprint, (1, 32, 32), header.card.footprint.exact_halo())
    alone, together = (
        open_predictor(str(small_model), header.digest, tiling, Engine("cpu", "float32", batch, 1)) for batch in (1, 4)
    )
    from volseg.blocks import Box

    write_box = Box((0, 0, 0), (4, 32, 32))
    contrasts = tuple((128.0, std) for std in (128.0, 18.0, 18.0, 18.0))
    read_box, model = tiling.read_box(write_box), load_model_file(small_model)
    voxels = blobs(read_box.shape)
    grey, tiles = Grey.of(voxels, contrasts), torch.from_numpy(model.normalize(voxels, contrasts))[:, None]
    with torch.inference_mode():
        plain = model.network(tiles).sigmoid()
        exact = model.network.double()(tiles.double()).sigmoid()
    exact = exact[:, 0, *write_box.relative_to(read_box.start).slices[1:]]
    tolerance = rounding_tolerance(plain[:, 0, *write_box.relative_to(read_box.start).slices[1:]], exact)
    for predict in (alone, together):
        np.testing.assert_allclose(next(predict(grey, write_box)).probability[0], exact, rtol=0, atol=tolerance)


def test_every_network_is_among_them() -> None:
    assert {kind for kind, _ in (NETWORKS | OTHERS).values()} == set(registry.NETWORKS)


_LONG = ("fcn16s", "deconvnet", "fusionnet_chain", "fusionnet-3d")
"""Networks of whose kind another one is quick."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in _LONG else ()) for name in OTHERS]
)
def test_every_network_leaves_no_seam(name: str, tmp_path: Path) -> None:
    kind, arguments = OTHERS[name]
    raw = blobs((5, 41, 43) if "3d" in name else (2, 70, 131))
    raw_path = make_volume(tmp_path / "raw.zarr", raw.shape, voxels=raw)
    path = awake_model(tmp_path, kind, arguments, raw)
    model, fraction = load_model_file(path), 0.999 if name == "deconvnet" else 1.0
    truth = whole_pass(model, raw)
    tolerance = float32_tolerance(truth, model, raw, fraction=fraction)
    summary = volseg.predict(
        str(raw_path), str(tmp_path / "p.zarr"), model=str(path), block=(4, 32, 32) if "3d" in name else (2, 64, 64),
        precision="float32", halo="exact", cluster="serial",
    )  # fmt: skip
    assert summary.done > 1
    assert not summary.failed
    off = np.abs(read_volume(tmp_path / "p.zarr") - truth * 255) > 0.5 + 255 * tolerance
    assert off.mean() <= 1 - fraction


def awake_model(folder: Path, kind: str, arguments: dict[str, Any], raw: np.ndarray) -> Path:
    """A random network that says something: the narrow ones without batch norm often do not."""
    for seed in range(20):
        path = make_model(folder / f"{seed}.safetensors", kind, arguments, seed=seed)
        if whole_pass(load_model_file(path), raw[:1]).std() > 0.01:
            return path
    raise AssertionError(f"no seed wakes {kind}")


@pytest.mark.slow
def test_deconvnets_rare_differences_are_roundings_that_turn_a_switch(tmp_path, monkeypatch) -> None:
    """Where two voxels of a cell are equal but for rounding, either may keep its place; in float64 none differs."""
    raw_path = make_volume(tmp_path / "raw.zarr", (1, 70, 131))
    path = make_model(tmp_path / "m.safetensors", "deconvnet", {"width": 1})
    model = load_model_file(path)
    monkeypatch.setitem(DTYPES, "float32", torch.float64)
    truth = whole_pass(replace(model, network=optimize(model.network, "cpu", "float32")), read_volume(raw_path))
    np.testing.assert_allclose(in_blocks(path, raw_path, (2, 64, 64)), truth, rtol=0, atol=1e-6)


FLIPS = [(0, False), (2, False), (0, True), (2, True)]


@pytest.mark.parametrize(
    ("kind", "arguments", "orientations", "turns"),
    [
        ("fusionnet", {"width": 3, "depth": 2}, "all", EIGHT),
        ("unet", {"width": 3, "depth": 2}, "flips", FLIPS),
        ("unet", {"width": 3, "depth": 2}, "all", EIGHT),
        pytest.param("fcn32s", {"width": 2}, "flips", FLIPS, marks=pytest.mark.slow),
        pytest.param(
            "unet",
            {"width": 2, "padded": True, "batch_norm": True, **ANISOTROPIC},
            "all",
            EIGHT,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_averages_over_orientations_leave_no_seam(kind, arguments, orientations, turns, tmp_path) -> None:
    raw_path = make_volume(tmp_path / "raw.zarr", (5, 41, 67) if "kernel" in arguments else (1, 70, 131))
    path = awake_model(tmp_path, kind, arguments, read_volume(raw_path))
    model, raw = load_model_file(path), read_volume(raw_path)
    truth, plain = whole_pass(model, raw, turns=turns), whole_pass(model, raw)
    volseg.predict(
        str(raw_path), str(tmp_path / "p.zarr"), model=str(path), block=(4, 32, 64), precision="float32",
        halo="exact", cluster="serial", orientations=orientations,
    )  # fmt: skip
    assert bytes_agree(read_volume(tmp_path / "p.zarr"), truth, float32_tolerance(truth, model, raw, turns=turns))
    assert np.abs(truth - plain).max() > 0.01


def test_an_ensemble_of_unlike_networks_leaves_no_seam_and_states_its_spread(raw_path: Path, tmp_path: Path) -> None:
    """Padded and unpadded, of other strides, normalisations, classes: each is tiled for itself."""
    files = [
        make_model(tmp_path / "a.safetensors", "fusionnet", {"width": 3, "depth": 2}, mode="fixed"),
        make_model(tmp_path / "b.safetensors", "unet", {"width": 3, "depth": 3}, seed=1),
        make_model(tmp_path / "c.safetensors", "sliding_window", {"width": 3, "window": 65}, mode="volume"),
    ]
    raw, models = read_volume(raw_path), [load_model_file(file) for file in files]
    estimates = np.stack([whole_pass(model, raw) for model in models])
    # Neither mean nor deviation is off by more than the worst of the members.
    tolerance = max(float32_tolerance(one, model, raw) for one, model in zip(estimates, models, strict=True))
    written = []
    for block in [(1, 32, 48), (3, 80, 144)]:
        target = tmp_path / f"{block[0]}.zarr"
        volseg.predict(
            str(raw_path), str(target), model=[str(file) for file in files], block=block, precision="float32",
            halo="exact", cluster="serial", uncertainty=True,
        )  # fmt: skip
        written.append((read_volume(target), read_volume(target / "uncertainty")))
    for mean, spread in written:
        assert bytes_agree(mean, estimates.mean(axis=0), tolerance)
        assert bytes_agree(spread, estimates.std(axis=0), tolerance)
    assert written[0][1].max() > 10


def test_several_classes_leave_no_seam_and_are_channels_by_name(tmp_path: Path) -> None:
    import zarr

    names = ("affinity_z", "affinity_y", "affinity_x")
    raw_path = make_volume(tmp_path / "raw.zarr", (5, 41, 67))
    path = make_model(
        tmp_path / "m.safetensors", "unet", {"width": 2, "out_channels": 3, "padded": True, **ANISOTROPIC},
        classes=names, activation="sigmoid",
    )  # fmt: skip
    model, raw = load_model_file(path), read_volume(raw_path)
    truth = whole_pass(model, raw, names)
    common: Any = {"block": (4, 16, 32), "precision": "float32", "halo": "exact", "cluster": "serial"}
    volseg.predict(str(raw_path), str(tmp_path / "all.zarr"), model=str(path), **common)
    group = zarr.open_group(tmp_path / "all.zarr", mode="r")
    whole = np.asarray(group["0"])
    assert bytes_agree(whole, truth, float32_tolerance(truth, model, raw, names))
    image: Any = group.attrs["ome"]
    assert [axis["name"] for axis in image["multiscales"][0]["axes"]] == ["c", "z", "y", "x"]
    assert [channel["label"] for channel in image["omero"]["channels"]] == list(names)
    volseg.predict(str(raw_path), str(tmp_path / "one.zarr"), model=str(path), classes="affinity_y", **common)
    np.testing.assert_array_equal(read_volume(tmp_path / "one.zarr"), whole[1])


@pytest.mark.parametrize("shape", [(2, 1, 1), (3, 10, 10)])
def test_a_volume_smaller_than_the_stride_is_mapped_too(shape: tuple[int, int, int], tmp_path: Path) -> None:
    raw = blobs((3, 20, 20))[: shape[0], : shape[1], : shape[2]]
    raw_path = make_volume(tmp_path / "raw.zarr", shape, voxels=np.ascontiguousarray(raw), chunk=(1, 8, 8))
    path = make_model(tmp_path / "m.safetensors", "fusionnet", {"width": 2, "depth": 4})
    model = load_model_file(path)
    truth = whole_pass(model, raw)
    volseg.predict(str(raw_path), str(tmp_path / "p.zarr"), model=str(path), precision="float32", cluster="serial")
    assert bytes_agree(read_volume(tmp_path / "p.zarr"), truth, float32_tolerance(truth, model, raw))
