"""NaN, infinity, overflow and wrong kernels are found: on a sample before the first block, and in each output."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import volseg
import volseg.inference.guard as guarding
import volseg.prediction.worker as working
from volseg.blocks import BlockGrid, Box, Tiling
from volseg.errors import BlockError, ConfigError, ModelError, NotFiniteError, WorkerError
from volseg.inference import Engine
from volseg.inference.finite import read_activations
from volseg.inference.network_check import MAX_VALUES, NetworkCheck, not_finite
from volseg.inference.optimize.onednn import PackedConvolution, can_pack
from volseg.inference.optimize.optimize import optimize
from volseg.inference.tiled_predictor import TiledPredictor
from volseg.models.model import load_model_file
from volseg.models.receptive_field import traced
from volseg.ops import Grey
from volseg.pipeline import BlockPipeline, EnsembleMember, process_block
from volseg.prediction import resolve
from volseg.prediction.autotune import tuner
from volseg.prediction.autotune.guard import Guarded, check_on_sample
from volseg.prediction.autotune.precision import context_halo
from volseg.storage import VolumeRef, read_marks, read_record
from volseg.testing.doubles import NoteRecorder
from volseg.testing.factories import blobs, make_model, make_volume, probe_spec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SOUND = NetworkCheck("cpu AVX2, float16", "float16", 100.0, "head", "", "", 0.001, 0.01)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("guard") / "tiny.safetensors", arguments={"width": 2, "depth": 1})


def convolutions(graph: torch.nn.Module) -> list[Any]:
    return [module for module in graph.modules() if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d)]


def damaged(change: Callable[[Any], None]) -> Callable[..., Any]:
    """`optimize` whose result is changed, as by a faulty kernel or memory; the model itself stays sound."""

    def damage(*arguments: Any) -> Any:
        graph = optimize(*arguments)
        change(graph)
        return graph

    return damage


def set_weight(graph: Any, layer: int, tap: int, value: float) -> None:
    weight = convolutions(graph)[layer].weight
    weight[np.unravel_index(tap % weight.numel(), weight.shape)] = value


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({}, None, ""),
        ({"not_finite_float32": "down.0"}, ModelError, "down.0 is NaN or infinite, in float32 as trained; take"),
        ({"not_finite": "down.0"}, ConfigError, "NaN or infinite in float16, .* use --precision bfloat16 or float32"),
        ({"largest": 65504 / 7.9}, ConfigError, r"8,292 \(head\); float16 ends at 65,504, 7.9 times as much, and 8"),
        ({"largest": 65504 / 8.1}, None, ""),
        ({"largest": 1e6, "precision": "bfloat16"}, None, ""),
        ({"error": 0.02}, WorkerError, "cpu AVX2, float16, the network's output is off by 0.02 of its size"),
        ({"error": float("inf")}, WorkerError, "output is NaN or infinite; leave out this worker"),
        ({"not_finite": "add", "precision": "float32"}, WorkerError, "output is NaN or infinite"),
    ],
)
def test_what_may_be_run(change: dict[str, Any], kind: Any, words: str) -> None:
    fault = replace(SOUND, **change).fault("a.safetensors")
    assert type(fault) is (kind or type(None))
    if fault is not None:
        with pytest.raises(kind, match=words):
            raise fault


def test_the_advice_never_is_a_precision_that_fails_too() -> None:
    assert "use --precision float32" in str(not_finite("head", "", "bfloat16"))
    assert "use --precision bfloat16 or float32" in str(not_finite("head", "", "float16"))
    for fault in (not_finite("head", "head", "bfloat16"), not_finite("head", "", "float32")):
        assert isinstance(fault, NotFiniteError)
        assert "--precision" not in str(fault)
        assert "take another model" in str(fault)
    assert isinstance(not_finite("", "", "bfloat16"), WorkerError)


def test_every_layer_is_read_and_the_first_that_is_not_finite_is_named(model: Path) -> None:
    network = load_model_file(model).network
    graph, tiles = traced(network), torch.ones(1, 1, 16, 16)
    with torch.inference_mode():
        sound, output = read_activations(graph, tiles)
        torch.testing.assert_close(output, network(tiles), rtol=0, atol=0)
        assert not sound.not_finite
        assert sound.largest >= float(output.abs().max())
        for name, module in graph.named_modules():
            if isinstance(module, torch.nn.Conv2d):
                broken = copy.deepcopy(graph)
                bias: Any = broken.get_submodule(name).bias
                bias[0] = float("nan")
                assert read_activations(broken, tiles)[0].not_finite == name


EVERY = [5, pytest.param(1, marks=pytest.mark.slow)]
"""Layers that are damaged: one in five, or all."""


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("value", [np.nan, *(pytest.param(sign * np.inf, marks=pytest.mark.slow) for sign in (1, -1))])
def test_a_weight_that_is_not_finite_in_any_layer_is_found(model: Path, value: float, every: int) -> None:
    """Also behind a ReLU that oneDNN fuses into the convolution, which makes 0 of NaN."""
    rng = np.random.default_rng(0)
    for layer in range(0, len(convolutions(optimize(load_model_file(model).network, "cpu", "float32"))), every):
        check = check_with(model, partial(set_weight, layer=layer, tap=int(rng.integers(2**31)), value=value))
        assert isinstance(check.fault("m"), WorkerError), (layer, check)


def check_with(model: Path, change: Callable[[Any], None]) -> NetworkCheck:
    """Check a network whose optimised form is changed."""
    loaded = load_model_file(model)
    tiling = Tiling(loaded.card.footprint, (1, 32, 32), context_halo(loaded.card.footprint))
    tile = np.random.default_rng(0).standard_normal(tiling.input_shape, np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guarding, "optimized", damaged(change))
        return guarding.check_network(loaded, tile, tiling, Engine("cpu", "float32", 1, 1), "cpu, float32")


@pytest.mark.parametrize("every", EVERY)
def test_one_wrong_tap_is_found_in_every_layer_and_none_where_all_are_right(model: Path, every: int) -> None:
    assert check_with(model, lambda graph: None).fault("m") is None
    count = len(convolutions(optimize(load_model_file(model).network, "cpu", "float32")))
    for layer in range(0, count, every):

        def double(graph: Any, layer: int = layer) -> None:
            weight = convolutions(graph)[layer].weight
            weight[np.unravel_index(int(weight.abs().argmax()), weight.shape)] *= -1

        assert isinstance(check_with(model, double).fault("m"), WorkerError), layer


def test_a_wrong_tap_of_a_packed_convolution_is_refused_before_the_first_block(
    raw: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_pack(torch.float32):  # tried once, before any is wrong
        pytest.skip("this torch does not pack convolutions")
    pack = PackedConvolution.__init__

    def wrong(self: Any, convolution: Any, **options: bool) -> None:
        other = copy.deepcopy(convolution)
        other.weight[0, 0, 0, 0] += 1
        pack(self, other, **options)

    monkeypatch.setattr(PackedConvolution, "__init__", wrong)
    with pytest.raises(WorkerError, match=r"tiny.safetensors: as optimised on cpu .*, the network's output is off by"):
        volseg.predict(str(raw), str(tmp_path / "p.zarr"), model=str(model), cluster="serial", precision="float32")
    assert not (tmp_path / "p.zarr").exists()


def test_the_record_holds_the_largest_activation_and_the_kinds_that_were_checked(
    raw: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "p.zarr"
    volseg.predict(str(raw), str(target), model=str(model), cluster="serial", precision="float32", halo="exact")
    record = read_record(target)
    entry = record.models[0].activations
    assert entry is not None
    assert entry.headroom == pytest.approx(MAX_VALUES["float32"] / entry.largest)
    assert entry.layer
    checked: list[str] = []

    def check(probe: Any, grid: Any) -> NetworkCheck:
        checked.append(probe.model_file)
        found = check_on_sample(probe, grid)
        assert found is not None
        return replace(found, error=1.0)

    monkeypatch.setattr(working, "check_on_sample", check)
    reference = working.RunRef(str(target), record.digest, VolumeRef(str(raw)), (str(model),))
    working.open_pipeline(reference)
    assert not checked, "its kind is in the record"
    monkeypatch.setattr(working, "worker_kind", lambda engine: "cpu OTHER, float32")
    with pytest.raises(WorkerError, match="is off by 1 of its size"):
        working.open_pipeline(reference)
    assert checked == [str(model)]


def test_a_run_without_contrast_and_one_voxel_wide_is_checked_too(model: Path, tmp_path: Path) -> None:
    for shape in ((1, 64, 64), (1, 1, 5)):
        raw = make_volume(tmp_path / f"{shape[1]}.zarr", shape, voxels=np.full(shape, 9, np.uint8), chunk=(1, 8, 8))
        check = check_on_sample(probe_spec(raw, model), BlockGrid.over(shape, shape, shape))
        assert check is not None
        assert check.largest > 0
        assert check.fault("m") is None


@pytest.mark.parametrize(("requested", "expected"), [("auto", "bfloat16"), ("float16", None)])
def test_float16_with_little_headroom_is_refused_or_not_chosen(
    raw: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requested: Any, expected: str | None
) -> None:
    monkeypatch.setattr(resolve, "choose_precision", lambda *_, **__: "float16")

    def guard(probes: Any, *_: Any) -> list[Guarded]:
        precision = probes[0].engine.precision
        return [Guarded("m", (replace(SOUND, precision=precision, kind=f"cpu, {precision}", largest=9000.0),))]

    monkeypatch.setattr(tuner, "guard", guard)
    monkeypatch.setattr(working, "check_kind", lambda *_: None)
    run = partial(volseg.predict, str(raw), str(tmp_path / "p.zarr"), model=str(model), cluster="serial", halo="exact")
    if expected is None:
        with pytest.raises(ConfigError, match=r"the largest activation is 9,000 \(head\); float16 ends at 65,504"):
            run(precision=requested)
    else:
        run(precision=requested)
        assert read_record(tmp_path / "p.zarr").settings.precision == expected


def test_little_headroom_is_noted() -> None:
    assert Guarded("m", (SOUND,)).note == ""
    near = Guarded("m", (replace(SOUND, largest=4000.0),))
    assert near.note == "m: the largest activation on a sample is 4,000 (head); float16 ends at 16 times as much"
    assert "lack of memory" in Guarded("m", ()).note


def predictor(model: Path, *, as_bytes: bool = True, precision: Any = "float32") -> TiledPredictor:
    loaded = load_model_file(model)
    tiling = Tiling(loaded.card.footprint, (1, 32, 32), context_halo(loaded.card.footprint))
    network = optimize(loaded.network, "cpu", precision)
    engine = Engine("cpu", precision, 1, 1)
    return TiledPredictor(network, loaded.probabilities, tiling, engine, as_bytes=as_bytes, trained=loaded.network)


BOX = Box((0, 0, 0), (1, 32, 32))


def grey_for(predict: TiledPredictor, scale: float = 1 / 60) -> Grey:
    raw = blobs(predict._tiling.read_box(BOX).shape)
    return Grey.of(raw, ((128.0, 1 / scale),))


@pytest.mark.parametrize("as_bytes", [True, False])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_output_that_is_not_finite_is_found_before_a_sigmoid_hides_it(
    model: Path, as_bytes: bool, bad: float
) -> None:
    predict = predictor(model, as_bytes=as_bytes)
    next(predict(grey_for(predict), BOX))
    convolutions(predict._network)[-1].bias[0] = bad
    predict._packed_cache.clear()
    predict._config = predict._configure(predict._tiling, 1)
    with pytest.raises(NotFiniteError, match="head is the first layer .* in float32 as in any precision"):
        next(predict(grey_for(predict), BOX))


def test_float32_is_advised_where_it_helps(model: Path) -> None:
    predict = predictor(model, precision="bfloat16")
    convolutions(predict._network)[-1].bias[0] = float("inf")
    predict._config = predict._configure(predict._tiling, 1)
    with pytest.raises(NotFiniteError, match="in bfloat16, and none is in float32; use --precision float32"):
        predict.inspect(grey_for(predict), BOX)


def test_nan_that_a_fused_relu_hides_is_found_in_one_block_of_a_hundred(model: Path) -> None:
    predict = predictor(model)
    weight = convolutions(predict._network)[0].weight
    weight[0, 0, 0, 0] = float("nan")
    predict._packed_cache.clear()
    predict._config = predict._configure(predict._tiling, 1)
    raw = blobs(predict._tiling.read_box(BOX).shape)

    class Memory:
        def read(self, box: Box) -> np.ndarray:
            return raw

        def write(self, box: Box, volumes: Any) -> tuple[str, int, str]:
            return "", 0, ""

    memory: Any = Memory()
    member = EnsembleMember(predict._tiling, ((128.0, 60.0),), predict, predict)
    pipeline = BlockPipeline(BlockGrid.over((101, 32, 32), (1, 32, 32), (1, 32, 32)), (member,), memory, memory)
    for number in (0, 100):
        with pytest.raises(BlockError, match=f"block {number} .*is the first layer with NaN"):
            process_block(number, pipeline)


def test_an_activation_that_overflows_beyond_the_sample_is_found(model: Path) -> None:
    """In a block as bright as none on the sample."""
    predict = predictor(model)
    next(predict(grey_for(predict), BOX))
    with pytest.raises(NotFiniteError, match="is the first layer with NaN or infinity"):
        next(predict(grey_for(predict, scale=3e36), BOX))


def test_a_block_computed_after_out_of_memory_says_so_in_its_mark(
    raw: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, large = TiledPredictor._forward, []

    def limited(self: TiledPredictor, cores: Any, config: Any, block: Any) -> Any:
        if config.tiling.core[1] > 32:
            large.append(cores)
            raise MemoryError
        return forward(self, cores, config, block)

    monkeypatch.setattr(TiledPredictor, "_forward", limited)
    options: dict[str, Any] = {"tile": (1, 64, 64), "block": (2, 64, 64), "halo": "exact", "precision": "float32"}
    notes = NoteRecorder()
    with pytest.warns(UserWarning, match="ran out of memory"):
        volseg.predict(
            str(raw), str(tmp_path / "p.zarr"), model=str(model), cluster="serial", progress=notes, **options
        )
    assert sum("this process ran out of memory; from block 0 on: cpu" in line for line in notes.lines) == 1
    assert large
    workers = {mark.worker for mark in read_marks(tmp_path / "p.zarr" / "0" / ".volseg")}
    assert all(worker.endswith("float32, tiles 1,32,32 batch 1 after out of memory") for worker in workers), workers
