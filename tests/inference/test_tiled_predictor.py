"""The network made ready computes what the plain one does, within what its precision allows."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from volseg.blocks import Box, Tiling
from volseg.errors import ModelError, NotFiniteError
from volseg.inference import Engine, open_predictor, open_predictors
from volseg.inference.executor import FORWARD
from volseg.inference.optimize.onednn import PackedConvolution, can_pack
from volseg.inference.tiled_predictor import bytes_of
from volseg.models import read_card
from volseg.models.model import load_model_file
from volseg.ops import Grey, to_uint8
from volseg.testing.factories import blobs, make_model

if TYPE_CHECKING:
    from pathlib import Path


def plain(values: np.ndarray) -> Grey:
    """A network's input as it is."""
    return Grey.of(values, ((0.0, 1.0),))


@pytest.mark.parametrize(("precision", "allowed"), [("float32", 0), ("bfloat16", 16)])
def test_lower_precision_costs_little(small_model: Path, precision, allowed: int) -> None:
    header = read_card(small_model)
    tiling = Tiling(header.card.footprint, (1, 64, 64), header.card.footprint.exact_halo())
    box = Box((0, 0, 0), (2, 64, 64))
    raw = blobs(tiling.read_box(box).shape).astype(np.float32) / np.float32(60) - np.float32(2)
    exact, made = (
        next(open_predictor(str(small_model), header.digest, tiling, Engine("cpu", kind, 1, 1))(plain(raw), box))
        for kind in ("float32", precision)
    )
    steps = np.abs(exact - made) * 255
    assert steps.max() <= allowed
    assert (steps.max() > 0) == (precision != "float32")


def test_weights_are_packed_once_for_all_tiles_and_orientations(
    small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed: list[torch.nn.Conv2d] = []
    pack = PackedConvolution.__init__

    def counted(self: PackedConvolution, convolution: torch.nn.Conv2d, **options: bool) -> None:
        packed.append(convolution)
        pack(self, convolution, **options)

    monkeypatch.setattr(PackedConvolution, "__init__", counted)
    header, engine = read_card(small_model), Engine("cpu", "float32", 1, 1)
    tilings = [Tiling(header.card.footprint, (1, side, side), (0, 16, 16)) for side in (64, 32)]
    open_predictors(str(small_model), header.digest, tilings[:1], engine, ("membrane",))
    alone = len(packed)
    packed.clear()
    engine = replace(engine, orientations="flips")
    open_predictors(str(small_model), header.digest, tilings, engine, ("membrane",))
    assert len(packed) == alone
    assert (alone > 0) == can_pack(torch.float32), "where oneDNN packs at all"


def test_blocks_of_several_threads_do_not_mix(small_model: Path) -> None:
    header = read_card(small_model)
    tiling = Tiling(header.card.footprint, (1, 32, 32), header.card.footprint.exact_halo())
    predict = open_predictor(str(small_model), header.digest, tiling, Engine("cpu", "float32", 2, 1))
    box = Box((0, 0, 0), (3, 32, 32))
    inputs = [blobs(tiling.read_box(box).shape, seed).astype(np.float32) / np.float32(60) for seed in range(4)]
    expected = [next(predict(plain(raw), box)) for raw in inputs]
    made: list[np.ndarray] = [np.empty(0)] * 4

    def work(index: int) -> None:
        for _ in range(3):
            made[index] = next(predict(plain(inputs[index]), box))
            load_model_file(small_model)  # traces a network, which patches modules for all threads

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(made, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_records_threads_hold_whatever_another_run_left(small_model: Path) -> None:
    header = read_card(small_model)
    tiling = Tiling(header.card.footprint, (1, 32, 32), header.card.footprint.exact_halo())
    predict = open_predictor(str(small_model), header.digest, tiling, Engine("cpu", "float32", 1, 1))
    box = Box((0, 0, 0), (1, 32, 32))
    FORWARD.submit(lambda: torch.set_num_threads(2)).result()
    next(predict(plain(np.zeros(tiling.read_box(box).shape, np.float32)), box))
    assert FORWARD.submit(torch.get_num_threads).result() == 1


def test_another_model_than_the_runs_is_refused(small_model: Path, tmp_path: Path) -> None:
    header = read_card(small_model)
    other = make_model(tmp_path / "other.safetensors", seed=3)
    tiling = Tiling(header.card.footprint, (1, 32, 32), header.card.footprint.exact_halo())
    with pytest.raises(ModelError, match="is not the model that this run was begun with"):
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
        next(open_predictor(str(small_model), header.digest, tiling, Engine(device, "float32", 2, 1))(plain(raw), box))
        for device in ("cpu", "cuda")
    )
    assert np.abs(on_cpu - on_gpu).max() * 255 <= 1


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", ">u2", "float32", "float64", "uint32"])
def test_bytes_made_on_the_device_are_those_made_of_probabilities(small_model: Path, dtype: str) -> None:
    header = read_card(small_model)
    tiling = Tiling(header.card.footprint, (1, 32, 32), header.card.footprint.exact_halo())
    engine, box = Engine("cpu", "float32", 2, 1), Box((0, 0, 0), (3, 48, 40))
    raw = blobs(tiling.read_box(box).shape).astype(dtype)
    grey = Grey.of(raw, tuple((100.0 + z, 40.0 + z) for z in range(3)))
    as_floats = open_predictor(str(small_model), header.digest, tiling, engine)
    as_bytes = open_predictor(str(small_model), header.digest, tiling, engine, as_bytes=True)
    (made,) = as_bytes(grey, box)
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(made, to_uint8(next(as_floats(grey, box))))
    # What the device makes of bytes is what numpy makes of them.
    np.testing.assert_array_equal(next(as_floats(plain(grey.normalized()), box)), next(as_floats(grey, box)))


def test_bytes_of_probabilities_are_the_same_bit_for_bit_on_any_device() -> None:
    edges = np.arange(511, dtype=np.float32) / np.float32(510)  # every half step
    values = np.concatenate([np.nextafter(edges, np.float32(-1)), edges, np.nextafter(edges, np.float32(2)), [-1, 2]])
    values = values.astype(np.float32)
    np.testing.assert_array_equal(bytes_of(torch.from_numpy(values)).numpy(), to_uint8(values))


def test_an_output_that_is_no_number_is_found_out_before_bytes_are_made_of_it(
    small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = read_card(small_model)
    tiling = Tiling(header.card.footprint, (1, 32, 32), header.card.footprint.exact_halo())
    predict = open_predictor(str(small_model), header.digest, tiling, Engine("cpu", "float32", 1, 1), as_bytes=True)
    box = Box((0, 0, 0), (1, 32, 32))
    grey = plain(np.zeros(tiling.read_box(box).shape, np.float32))
    next(predict(grey, box))
    monkeypatch.setattr(predict, "_activate", lambda output: output / 0)
    with pytest.raises(NotFiniteError):
        next(predict(grey, box))
