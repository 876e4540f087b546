"""Pages that are freed are used again; and a process of the user's gets them back."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import volseg
import volseg.inference.hardware
import volseg.inference.optimize.optimize
import volseg.inference.predictor
import volseg.inference.tiled_predictor
import volseg.prediction.worker
from volseg.blocks import Box, Tiling
from volseg.cluster import connect
from volseg.inference import Engine, open_predictor
from volseg.inference.memory import malloc
from volseg.models import read_card
from volseg.ops import Grey
from volseg.testing.doubles import faults_of_large_maps
from volseg.testing.factories import make_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps pages on request")

PROGRAM = """
import json, resource, sys
import numpy as np
import psutil
import torch
from volseg.inference import worker_facts
from volseg.inference.memory.malloc import give_pages_back, keep_pages

def faults(size=64 << 20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        np.ones(size, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual, able = faults(), keep_pages()
faults()
worker_facts("cpu")  # as a run that goes on asks, whose network is ready already
kept, held = faults(), psutil.Process().memory_info().rss
give_pages_back()
returned = held - psutil.Process().memory_info().rss
faults()
print(json.dumps([able, usual, kept, returned, faults()]))
"""


def test_pages_are_kept_until_they_are_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    able, usual, kept, returned, afterwards = json.loads(done.stdout)
    assert able
    # A page fault hands out 4 KiB, or 2 MiB where the system has huge pages for all.
    assert kept < usual / 10
    assert returned > 32 << 20
    assert afterwards > usual / 2


APART = """
import json, sys
import psutil
from volseg.inference.memory.malloc import give_pages_back, keep_pages, maps_apart

SIZE = 64 << 20

def kept():
    "What a large piece that was made and dropped leaves with the process."
    before = psutil.Process().memory_info().rss
    b"x" * SIZE
    left = psutil.Process().memory_info().rss - before
    return left / SIZE

def apart(within=lambda: None):
    with maps_apart():
        within()
        return kept()

usual = apart()
untouched = kept()
keep_pages()
while_apart = apart()
afterwards = kept()
before = psutil.Process().memory_info().rss
again = apart()
returned = (before - psutil.Process().memory_info().rss) / SIZE
stopped = kept() if apart(give_pages_back) is not None else None
print(json.dumps([usual, untouched, while_apart, afterwards, again, returned, stopped]))
"""


def test_large_pieces_of_a_first_pass_leave_nothing_and_those_of_later_ones_stay() -> None:
    done = subprocess.run([sys.executable, "-c", APART], capture_output=True, text=True, check=True)
    usual, untouched, while_apart, afterwards, again, returned, stopped = json.loads(done.stdout)
    assert max(usual, untouched, while_apart, again, stopped) < 0.1
    assert afterwards > 0.9
    assert returned > 0.9, "what was kept until then goes back"


def test_a_process_that_keeps_no_pages_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[int, int]] = []
    monkeypatch.setattr(malloc, "_told", told.append)
    monkeypatch.setattr(malloc, "_keeps", False)
    with malloc.mmap_large_blocks():
        pass
    assert not told


def test_a_block_is_predicted_apart_once(small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[str] = []

    @contextmanager
    def apart() -> Iterator[None]:
        passes.append("apart")
        yield

    monkeypatch.setattr(volseg.inference.optimize.optimize, "mmap_large_blocks", apart)
    header = read_card(small_model)
    tiling = Tiling(header.card.footprint, (1, 32, 32), header.card.footprint.margin)
    predict = open_predictor(str(small_model), header.digest, tiling, Engine("cpu", "float32", 1, 1))
    box = Box((0, 0, 0), (3, 32, 32))
    for _ in range(2):
        list(predict(Grey.of(np.zeros(tiling.read_box(box).shape, np.uint8), ((128.0, 60.0),)), box))
    assert passes == ["apart"]


def test_the_first_pass_over_each_shape_of_tiles_is_made_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = False
    seen: list[bool] = []

    @contextmanager
    def apart() -> Iterator[None]:
        nonlocal inside
        inside = True
        yield
        inside = False

    def network(tiles: torch.Tensor) -> torch.Tensor:
        seen.append(inside)
        return tiles

    monkeypatch.setattr(volseg.inference.optimize.optimize, "mmap_large_blocks", apart)
    settling = volseg.inference.optimize.optimize.WarmupAllocation(network)
    for batch in (2, 2, 1, 2, 1):
        settling(torch.zeros(batch, 1, 8, 8))
    assert seen == [True, False, True, False, False]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_network_that_runs_here_keeps_its_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: Any) -> None:
    told: list[str] = []
    monkeypatch.setattr(volseg.inference.predictor, "retain_heap", lambda: told.append("kept"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(volseg.inference.optimize.optimize, "prepared", lambda *_: None)
    monkeypatch.setattr(volseg.inference.tiled_predictor, "TiledPredictor", lambda *_, **__: None)
    model = make_model(tmp_path / "m.safetensors")  # its own: what is made ready of it here, others must not find
    header = read_card(model)
    tiling = Tiling(header.card.footprint, (1, 32, 32), header.card.footprint.margin)
    open_predictor(str(model), header.digest, tiling, Engine(device, "float32", 1, 1))
    assert told == (["kept"] if device == "cpu" else [])


def test_pages_go_back_before_a_run_and_when_a_serial_one_is_over(
    raw: Path, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    for module in ("cluster.connect", "journey"):
        monkeypatch.setattr(sys.modules[f"volseg.{module}"], "release_heap", partial(told.append, module))
    ensemble_of = volseg.prediction.worker.ensemble_of

    def opened(*of: Any) -> Any:
        told.append("opened")
        return ensemble_of(*of)

    monkeypatch.setattr(volseg.prediction.worker, "ensemble_of", opened)
    volseg.predict(str(raw), str(tmp_path / "p.zarr"), model=str(small_model), cluster="serial")
    assert told == ["journey", "opened", "cluster.connect"]


def test_a_local_worker_keeps_maps_that_are_larger_than_the_heap_of_a_thread() -> None:
    """A thread's own heap ends at 64 MiB: what is larger would come from the system anew each time."""
    size = 160 << 20
    with connect("local", 1) as cluster:
        cluster.on_one(faults_of_large_maps, size)
        faults = cluster.on_one(faults_of_large_maps, size)
    assert faults < size // 4096 / 10
