"""A tiled prediction agrees with the trained network, within the precision."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from volseg.blocks import Box, Tiling
from volseg.errors import ModelError
from volseg.inference import Engine, open_predictor, open_predictors
from volseg.inference.executor import forward_executor
from volseg.inference.optimize.onednn import PackedConvolution, can_pack
from volseg.inference.tiled_predictor import TiledPredictor, quantize
from volseg.models import read_card
from volseg.models.model import load_model_file
from volseg.ops import Grey, to_uint8
from volseg.testing.factories import blobs, make_model

if TYPE_CHECKING:
    from pathlib import Path


def unscaled(values: np.ndarray) -> Grey:
    """Grey values that normalisation leaves as they are."""
    return Grey.of(values, ((0.0, 1.0),))


def first(predict: TiledPredictor, grey: Grey, box: Box) -> np.ndarray:
    """Probabilities of the first orientation."""
    return next(predict(grey, box)).probability


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_lower_precision_is_used_and_no_less_accurate_than_torchs_own(small_model: Path, precision) -> None:
    model = load_model_file(small_model)
    tiling = Tiling(model.card.footprint, (1, 64, 64), model.card.footprint.exact_halo())
    box = Box((0, 0, 0), (2, 64, 64))
    raw = blobs(tiling.read_box(box).shape).astype(np.float32) / np.float32(60) - np.float32(2)
    exact, lower = (
        first(open_predictor(str(small_model), model.digest, tiling, Engine("cpu", kind, 1, 1)), unscaled(raw), box)
        for kind in ("float32", precision)
    )
    with torch.inference_mode():
        tiles = torch.from_numpy(raw)[:, None].to(getattr(torch, precision))
        plain = model.probabilities(model.network.to(tiles.dtype)(tiles), ("membrane",)).float().numpy()
    inside = box.relative_to(tiling.read_box(box).start).slices
    error, own = np.abs(exact - lower).max(), np.abs(exact[0] - plain[:, 0][inside]).max()
    assert error <= 2 * own
    assert (error > 0) == (precision != "float32")


def test_weights_are_packed_once_for_all_tiles_and_orientations(
    small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convolutions: list[torch.nn.Conv2d] = []
    pack = PackedConvolution.__init__

    def counted(self: PackedConvolution, convolution: torch.nn.Conv2d, **options: bool) -> None:
        convolutions.append(convolution)
        pack(self, convolution, **options)

    monkeypatch.setattr(PackedConvolution, "__init__", counted)
    header, engine = read_card(small_model), Engine("cpu", "float32", 1, 1)
    tilings = [Tiling(header.card.footprint, (1, side, side), (0, 16, 16)) for side in (64, 32)]
    open_predictors(str(small_model), header.digest, tilings[:1], engine, ("membrane",))
    count = len(convolutions)
    convolutions.clear()
    engine = replace(engine, orientations="flips")
    open_predictors(str(small_model), header.digest, tilings, engine, ("membrane",))
    assert len(convolutions) == count
    assert (count > 0) == can_pack(torch.float32)


def test_blocks_of_concurrent_threads_do_not_mix(small_model: Path) -> None:
    header = read_card(small_model)
    tiling = Tiling(header.card.footprint, (1, 32, 32), header.card.footprint.exact_halo())
    predict = open_predictor(str(small_model), header.digest, tiling, Engine("cpu", "float32", 2, 1))
    box = Box((0, 0, 0), (3, 32, 32))
    inputs = [blobs(tiling.read_box(box).shape, seed).astype(np.float32) / np.float32(60) for seed in range(4)]
    expected = [first(predict, unscaled(raw), box) for raw in inputs]
    results: list[np.ndarray] = [np.empty(0)] * 4

    def predict_repeatedly(index: int) -> None:
        for _ in range(3):
            results[index] = first(predict, unscaled(inputs[index]), box)
            load_model_file(small_model)  # traces a network, which patches modules for all threads

    threads = [threading.Thread(target=predict_repeatedly, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result, alone in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, alone)


def test_a_pass_uses_the_threads_of_its_engine_after_another_run_changed_them(small_model: Path) -> None:
    header = read_card(small_model)
    tiling = Tiling(header.card.footprint, (1, 32, 32), header.card.footprint.exact_halo())
    predict = open_predictor(str(small_model), header.digest, tiling, Engine("cpu", "float32", 1, 1))
    box = Box((0, 0, 0), (1, 32, 32))
    forward_executor.submit(lambda: torch.set_num_threads(2)).result()
    next(predict(unscaled(np.zeros(tiling.read_box(box).shape, np.float32)), box))
    assert forward_executor.submit(torch.get_num_threads).result() == 1


def test_a_model_other_than_the_recorded_one_is_refused(small_model: Path, tmp_path: Path) -> None:
    header = read_card(small_model)
    other = make_model(tmp_path / "other.safetensors", seed=3)
    tiling = Tiling(header.card.footprint, (1, 32, 32), header.card.footprint.exact_halo())
    with pytest.raises(ModelError, match="other.safetensors is not the model that this run started with"):
        open_predictor(str(other), header.digest, tiling, Engine("cpu", "float32", 1, 1))


@pytest.mark.gpu
def test_a_gpu_agrees_with_the_cpu(small_model: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    header = read_card(small_model)
    tiling = Tiling(header.card.footprint, (1, 64, 64), header.card.footprint.exact_halo())
    box = Box((0, 0, 0), (5, 64, 64))
    raw = blobs(tiling.read_box(box).shape).astype(np.float32) / np.float32(60) - np.float32(2)
    on_cpu, on_gpu = (
        first(
            open_predictor(str(small_model), header.digest, tiling, Engine(device, "float32", 2, 1)), unscaled(raw), box
        )
        for device in ("cpu", "cuda")
    )
    assert np.abs(on_cpu - on_gpu).max() * 255 <= 1


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", ">u2", "float32", "float64", "uint32"])
def test_uint8_from_the_device_equals_quantised_float32(small_model: Path, dtype: str) -> None:
    header = read_card(small_model)
    tiling = Tiling(header.card.footprint, (1, 32, 32), header.card.footprint.exact_halo())
    engine, box = Engine("cpu", "float32", 2, 1), Box((0, 0, 0), (3, 48, 40))
    raw = blobs(tiling.read_box(box).shape).astype(dtype)
    grey = Grey.of(raw, tuple((100.0 + z, 40.0 + z) for z in range(3)))
    as_floats = open_predictor(str(small_model), header.digest, tiling, engine)
    as_bytes = open_predictor(str(small_model), header.digest, tiling, engine, as_bytes=True)
    ((quantised, seconds),) = as_bytes(grey, box)
    assert quantised.dtype == np.uint8
    assert seconds > 0
    np.testing.assert_array_equal(quantised, to_uint8(first(as_floats, grey, box)))
    # The device normalises as NumPy does.
    np.testing.assert_array_equal(first(as_floats, unscaled(grey.normalized()), box), first(as_floats, grey, box))


def test_quantisation_is_the_same_bit_for_bit_as_in_numpy() -> None:
    edges = np.arange(511, dtype=np.float32) / np.float32(510)  # every half step
    values = np.concatenate([np.nextafter(edges, np.float32(-1)), edges, np.nextafter(edges, np.float32(2)), [-1, 2]])
    values = values.astype(np.float32)
    np.testing.assert_array_equal(quantize(torch.from_numpy(values)).numpy(), to_uint8(values))
