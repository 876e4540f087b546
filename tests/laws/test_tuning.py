"""What a run takes where it may choose: the fastest tile, and the fastest precision that rounds little enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import volseg
import volseg.inference.optimize.fold_batch_norm
import volseg.inference.optimize.optimize
import volseg.prediction.autotune.precision
import volseg.prediction.autotune.tile as choosing
import volseg.prediction.resolve
from volseg.blocks import Box, Tiling
from volseg.cluster import NullProgress
from volseg.config import PredictConfig
from volseg.config.tolerance import Tolerance
from volseg.inference import Engine
from volseg.inference.optimize.fold_batch_norm import without_norms
from volseg.models.model import clear_model_cache, load_model_file
from volseg.prediction.autotune.precision import PrecisionLoss, measure_box, slower
from volseg.prediction.prepare import prepare
from volseg.prediction.run import execute
from volseg.storage import read_record
from volseg.testing.factories import make_model, make_volume, sampled_for

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """Large enough for measuring to pay."""
    return make_volume(tmp_path / "wide.zarr", (10, 256, 256))


def begin(raw: Path, target: Path, model: Path, **options: Any) -> None:
    """Begin a run, and do the first of its blocks: what it takes is settled before."""
    config = PredictConfig(source=str(raw), target=str(target), model=str(model), cluster="serial", **options)
    assert execute(prepare(config), NullProgress(), [0]).done == 1


@pytest.mark.parametrize(
    ("precision", "share", "greatest", "taken"),
    [
        ("bfloat16", 0.98, 16, True),
        ("bfloat16", 0.979, 16, False),
        ("bfloat16", 0.99, 17, False),
        ("float16", 0.999, 255, True),
        ("float16", 0.998, 1, False),
        ("float32", 0.5, 99, True),
    ],
)
def test_auto_takes_a_precision_within_its_limits(precision: Any, share: float, greatest: float, taken: bool) -> None:
    assert PrecisionLoss(share, greatest).within(precision) == taken


def test_a_slower_precision_rounds_less() -> None:
    assert [slower("float16", "cuda"), slower("bfloat16", "cuda"), slower("bfloat16", "cpu")] == [
        "bfloat16",
        "float32",
        "float32",
    ]


@pytest.mark.parametrize(
    ("asked", "limit", "taken"),
    [("auto", 1.0, "float32"), ("auto", 0.01, "bfloat16"), ("bfloat16", 1.0, "bfloat16")],
)
def test_what_rounds_too_much_is_not_taken_unless_asked_for(
    wide: Path, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: Any, limit: float, taken: str
) -> None:
    monkeypatch.setattr(volseg.prediction.resolve, "choose_precision", lambda *_, **__: "bfloat16")
    monkeypatch.setitem(
        volseg.prediction.autotune.precision.LIMITS, "bfloat16", Tolerance(limit, 0 if limit == 1 else 255)
    )
    begin(wide, tmp_path / "p.zarr", small_model, precision=asked, halo="exact")
    record = read_record(tmp_path / "p.zarr")
    assert record.settings.precision == taken
    rounding = record.models[0].rounding
    assert rounding is not None
    assert (rounding[1] <= 1) == (taken == "float32")  # float32 too may tip a grey level


def test_where_a_tile_ends_is_no_rounding(wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folded norm pads with another value than the norm did, and a network as it was trained would show that."""
    model = make_model(tmp_path / "m.safetensors", arguments={"width": 4, "depth": 2}, seed=1)
    sampled, box = sampled_for(wide, model, "bfloat16"), Box((4, 64, 64), (5, 192, 192))
    greatest = []
    for around in (0, 64):
        monkeypatch.setattr(volseg.prediction.autotune.precision, "_AROUND", around)
        apart = measure_box(box, sampled)
        assert apart is not None
        greatest.append(int(apart.max()))
    assert 0 < max(greatest) <= 20


def test_in_float32_folding_itself_is_measured(wide: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the network as it was trained, on a tile whose end does not reach what is compared."""
    monkeypatch.setattr(volseg.prediction.autotune.precision, "_AROUND", 0)
    sampled, box = sampled_for(wide, small_model), Box((4, 64, 64), (5, 192, 192))
    apart = measure_box(box, sampled)
    assert apart is not None
    assert apart.max() <= 1

    def folded_badly(network: Any) -> Any:
        folded = without_norms(network)
        for parameter in folded.parameters():
            parameter.mul_(1.05)
        return folded

    for module in (volseg.inference.optimize.fold_batch_norm, volseg.inference.optimize.optimize):
        monkeypatch.setattr(module, "without_norms", folded_badly)
    clear_model_cache()
    apart = measure_box(box, sampled)
    assert apart is not None
    assert apart.max() > 1
    clear_model_cache()


def test_the_tile_with_the_most_useful_voxels_a_second_is_taken(
    wide: Path, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "_HOPELESS", 9.0)
    monkeypatch.setattr(choosing, "_PASSES", 1)

    def seconds(model: Any, tiling: Tiling, engine: Any) -> float:
        return 1e-3 if tiling.core[1] == 128 else 1.0

    monkeypatch.setattr(choosing, "seconds_a_pass", seconds)
    begin(wide, tmp_path / "p.zarr", small_model, halo="exact")
    (entry,) = read_record(tmp_path / "p.zarr").models
    assert entry.tile == (1, 128, 128)
    assert entry.kvoxel_s == pytest.approx(128 * 128 / 1e-3 / 1e3)


def test_tiles_are_timed_for_whatever_classes_a_model_has(
    wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "_HOPELESS", 9.0)
    monkeypatch.setattr(choosing, "_PASSES", 1)
    model = make_model(tmp_path / "m.safetensors", classes=("mitochondria",))
    begin(wide, tmp_path / "p.zarr", model, halo="exact")
    assert read_record(tmp_path / "p.zarr").models[0].kvoxel_s > 0


def test_the_first_pass_over_a_tile_does_not_count(small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "_SECONDS", 0.0)
    model = load_model_file(small_model)
    tiling = Tiling(model.card.footprint, (1, 32, 32), model.card.footprint.margin)
    engine = Engine("cpu", "float32", 1, 1)
    assert len(choosing.passes_of(model, tiling, engine)) == 2, "however long one takes"
    monkeypatch.setattr(choosing, "passes_of", lambda *_: [9.0, 1.0, 3.0, 2.0])
    assert choosing.seconds_a_pass(model, tiling, engine) == 2.0


def test_a_tile_that_is_asked_for_is_taken(wide: Path, small_model: Path, tmp_path: Path) -> None:
    begin(wide, tmp_path / "p.zarr", small_model, tile=(1, 64, 64))
    assert read_record(tmp_path / "p.zarr").models[0].tile == (1, 64, 64)


def test_float16_that_was_not_tried_on_the_volume_is_not_taken(
    raw: Path, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may overflow, and a small run is over before that is known."""
    monkeypatch.setattr(volseg.prediction.resolve, "choose_precision", lambda *_, **__: "float16")
    volseg.predict(str(raw), str(tmp_path / "p.zarr"), model=str(small_model), cluster="serial", halo="exact")
    record = read_record(tmp_path / "p.zarr")
    assert record.models[0].rounding is None
    assert record.settings.precision == "bfloat16"
