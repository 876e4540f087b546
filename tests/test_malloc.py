"""A retained heap reuses freed memory, and releases it on request."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import volseg.inference.optimize.optimize
from volseg import malloc
from volseg.blocks import Box, Tiling
from volseg.inference import Engine, open_predictor
from volseg.models import read_card
from volseg.ops import Grey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can retain freed memory")

PAGE_FAULTS = """
import json, resource
import numpy as np
import psutil
import torch
from volseg.inference import worker_info
from volseg.malloc import release_heap, retain_heap

def faults(size=64 << 20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        np.ones(size, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

default, supported = faults(), retain_heap()
faults()
worker_info("cpu")  # as a resumed run calls it, whose network is optimised already
retained, resident = faults(), psutil.Process().memory_info().rss
release_heap()
returned = resident - psutil.Process().memory_info().rss
faults()
print(json.dumps([supported, default, retained, returned, faults()]))
"""


def test_freed_memory_is_reused_until_it_is_released() -> None:
    process = subprocess.run([sys.executable, "-c", PAGE_FAULTS], capture_output=True, text=True, check=True)
    supported, default, retained, returned, afterwards = json.loads(process.stdout)
    assert supported
    # A page fault hands out 4 KiB, or 2 MiB if the system has huge pages for all.
    assert retained < default / 10
    assert returned > 32 << 20
    assert afterwards > default / 2


RESIDENT = """
import json
import psutil
from volseg.malloc import mmap_large_blocks, release_heap, retain_heap

SIZE = 64 << 20

def rss():
    return psutil.Process().memory_info().rss

def left():
    "Resident memory that a freed block leaves, as a fraction of its size."
    before = rss()
    b"x" * SIZE
    return (rss() - before) / SIZE

def left_of_mmap(first=lambda: None):
    with mmap_large_blocks():
        first()
        return left()

default_mmap, default = left_of_mmap(), left()
retain_heap()
retained_mmap, retained = left_of_mmap(), left()
before = rss()
again_mmap = left_of_mmap()
returned = (before - rss()) / SIZE
left_of_mmap(release_heap)
print(json.dumps([default_mmap, default, retained_mmap, retained, again_mmap, returned, left()]))
"""


def test_large_blocks_of_a_first_pass_return_to_the_system_and_those_of_later_ones_stay() -> None:
    process = subprocess.run([sys.executable, "-c", RESIDENT], capture_output=True, text=True, check=True)
    default_mmap, default, retained_mmap, retained, again_mmap, returned, released = json.loads(process.stdout)
    assert max(default_mmap, default, retained_mmap, again_mmap, released) < 0.1
    assert retained > 0.9
    assert returned > 0.9, "a first pass trims the heap"


def test_a_process_that_does_not_retain_its_heap_is_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[int, int]] = []
    monkeypatch.setattr(malloc, "_mallopt", calls.append)
    with malloc.mmap_large_blocks():
        pass
    assert not calls


def test_opening_and_running_a_predictor_does_not_change_malloc(
    small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process may be the user's: only a worker or a run opts in."""
    calls: list[dict[int, int]] = []
    monkeypatch.setattr(malloc, "_mallopt", calls.append)
    predict_twice(small_model)
    assert not calls


def predict_twice(model: Path) -> None:
    header = read_card(model)
    tiling = Tiling(header.card.footprint, (1, 32, 32), header.card.footprint.margin)
    predict = open_predictor(str(model), header.digest, tiling, Engine("cpu", "float32", 1, 1))
    box = Box((0, 0, 0), (3, 32, 32))
    for _ in range(2):
        list(predict(Grey.of(np.zeros(tiling.read_box(box).shape, np.uint8), ((128.0, 60.0),)), box))


def test_a_predictor_warms_up_once(small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warmups: list[str] = []

    @contextmanager
    def count() -> Iterator[None]:
        warmups.append("warm-up")
        yield

    monkeypatch.setattr(volseg.inference.optimize.optimize, "mmap_large_blocks", count)
    predict_twice(small_model)
    assert warmups == ["warm-up"]


def test_the_first_pass_over_each_shape_of_tiles_allocates_outside_of_the_heap(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = False
    passes: list[bool] = []

    @contextmanager
    def mmap() -> Iterator[None]:
        nonlocal inside
        inside = True
        yield
        inside = False

    def network(tiles: torch.Tensor) -> torch.Tensor:
        passes.append(inside)
        return tiles

    monkeypatch.setattr(volseg.inference.optimize.optimize, "mmap_large_blocks", mmap)
    warmup = volseg.inference.optimize.optimize.WarmupAllocation(network)
    for batch in (2, 2, 1, 2, 1):
        warmup(torch.zeros(batch, 1, 8, 8))
    assert passes == [True, False, True, False, False]
