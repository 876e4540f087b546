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
from volseg.inference.optimize.fold_batch_norm import fold_batch_norm
from volseg.models.model import clear_model_cache, load_model_file
from volseg.prediction.autotune.precision import PrecisionLoss, measure_box, next_precision
from volseg.prediction.prepare import prepare
from volseg.prediction.run import execute
from volseg.storage import read_record
from volseg.testing.factories import make_model, make_volume, probe_spec

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """Large enough for measuring to pay."""
    return make_volume(tmp_path / "wide.zarr", (10, 256, 256))


def predict_first_block(raw: Path, target: Path, model: Path, **options: Any) -> None:
    """Resolve a run, and predict its first block only."""
    config = PredictConfig(source=str(raw), target=str(target), model=str(model), cluster="serial", **options)
    assert execute(*prepare(config), NullProgress(), [0]).done == 1


@pytest.mark.parametrize(
    ("precision", "fraction", "max_error", "acceptable"),
    [
        ("bfloat16", 0.98, 16, True),
        ("bfloat16", 0.979, 16, False),
        ("bfloat16", 0.99, 17, False),
        ("float16", 0.999, 255, True),
        ("float16", 0.998, 1, False),
        ("float32", 0.5, 99, True),
    ],
)
def test_auto_accepts_a_precision_within_its_limits(
    precision: Any, fraction: float, max_error: float, acceptable: bool
) -> None:
    assert PrecisionLoss(fraction, max_error).is_acceptable(precision) == acceptable


def test_the_next_precision_is_more_accurate() -> None:
    assert [next_precision("float16"), next_precision("bfloat16")] == ["bfloat16", "float32"]


@pytest.mark.parametrize(
    ("requested", "limit", "expected"),
    [("auto", 1.0, "float32"), ("auto", 0.01, "bfloat16"), ("bfloat16", 1.0, "bfloat16")],
)
def test_an_inaccurate_precision_is_used_only_if_requested(
    wide: Path,
    small_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    requested: Any,
    limit: float,
    expected: str,
) -> None:
    monkeypatch.setattr(volseg.prediction.resolve, "choose_precision", lambda *_, **__: "bfloat16")
    monkeypatch.setitem(
        volseg.prediction.autotune.precision.LIMITS, "bfloat16", Tolerance(limit, 0 if limit == 1 else 255)
    )
    predict_first_block(wide, tmp_path / "p.zarr", small_model, precision=requested, halo="exact")
    record = read_record(tmp_path / "p.zarr")
    assert record.settings.precision == expected
    loss = record.models[0].precision_loss
    assert loss is not None
    assert (loss[1] <= 1) == (expected == "float32")  # float32 may differ by a grey level too


def test_the_border_of_a_tile_does_not_count_as_error(
    wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folded norm pads with another value than the norm did, and a network as it was trained would show that."""
    model = make_model(tmp_path / "m.safetensors", arguments={"width": 4, "depth": 2}, seed=1)
    probe, box = probe_spec(wide, model, "bfloat16"), Box((4, 64, 64), (5, 192, 192))
    errors = []
    for context in (0, 64):
        monkeypatch.setattr(volseg.prediction.autotune.precision, "_CONTEXT", context)
        difference = measure_box(box, probe)
        assert difference is not None
        errors.append(int(difference.max()))
    assert 0 < max(errors) <= 20


def test_in_float32_folding_itself_is_measured(wide: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the network as it was trained, on a tile whose end does not reach what is compared."""
    monkeypatch.setattr(volseg.prediction.autotune.precision, "_CONTEXT", 0)
    probe, box = probe_spec(wide, small_model), Box((4, 64, 64), (5, 192, 192))
    difference = measure_box(box, probe)
    assert difference is not None
    assert difference.max() <= 1

    def fold_wrongly(network: Any) -> Any:
        folded = fold_batch_norm(network)
        for parameter in folded.parameters():
            parameter.mul_(1.05)
        return folded

    for module in (volseg.inference.optimize.fold_batch_norm, volseg.inference.optimize.optimize):
        monkeypatch.setattr(module, "fold_batch_norm", fold_wrongly)
    clear_model_cache()
    difference = measure_box(box, probe)
    assert difference is not None
    assert difference.max() > 1
    clear_model_cache()


def test_the_fastest_tile_is_chosen(
    wide: Path, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "_MAX_OVERHEAD", 9.0)
    monkeypatch.setattr(choosing, "_MIN_PASSES", 1)

    def seconds(model: Any, tiling: Tiling, engine: Any) -> float:
        return 1e-3 if tiling.core[1] == 128 else 1.0

    monkeypatch.setattr(choosing, "seconds_per_pass", seconds)
    predict_first_block(wide, tmp_path / "p.zarr", small_model, halo="exact")
    (entry,) = read_record(tmp_path / "p.zarr").models
    assert entry.tile == (1, 128, 128)
    assert entry.kvoxel_s == pytest.approx(128 * 128 / 1e-3 / 1e3)


def test_tiles_are_timed_for_any_classes(wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "_MAX_OVERHEAD", 9.0)
    monkeypatch.setattr(choosing, "_MIN_PASSES", 1)
    model = make_model(tmp_path / "m.safetensors", classes=("mitochondria",))
    predict_first_block(wide, tmp_path / "p.zarr", model, halo="exact")
    assert read_record(tmp_path / "p.zarr").models[0].kvoxel_s > 0


def test_the_first_pass_over_a_tile_is_not_counted(small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "_TIMED_SECONDS", 0.0)
    model = load_model_file(small_model)
    tiling = Tiling(model.card.footprint, (1, 32, 32), model.card.footprint.margin)
    engine = Engine("cpu", "float32", 1, 1)
    assert len(choosing.time_passes(model, tiling, engine)) == 2, "however long one takes"
    monkeypatch.setattr(choosing, "time_passes", lambda *_: [9.0, 1.0, 3.0, 2.0])
    assert choosing.seconds_per_pass(model, tiling, engine) == 2.0


def test_a_requested_tile_is_used(wide: Path, small_model: Path, tmp_path: Path) -> None:
    predict_first_block(wide, tmp_path / "p.zarr", small_model, tile=(1, 64, 64))
    assert read_record(tmp_path / "p.zarr").models[0].tile == (1, 64, 64)


def test_float16_that_was_not_measured_is_not_used(
    raw: Path, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may overflow, and a small run is over before that is known."""
    monkeypatch.setattr(volseg.prediction.resolve, "choose_precision", lambda *_, **__: "float16")
    volseg.predict(str(raw), str(tmp_path / "p.zarr"), model=str(small_model), cluster="serial", halo="exact")
    record = read_record(tmp_path / "p.zarr")
    assert record.models[0].precision_loss is None
    assert record.settings.precision == "bfloat16"
