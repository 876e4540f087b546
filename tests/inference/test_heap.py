"""Pages that are freed are used again; and a process of the user's gets them back."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

from tests.doubles import faults_of_large_maps
from volseg.cluster import connect

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps pages on request")

PROGRAM = """
import json, resource, sys
import numpy as np
import psutil
from volseg.inference.heap import give_pages_back, keep_pages

def faults(size=64 << 20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        np.ones(size, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual, able = faults(), keep_pages()
faults()
kept, held = faults(), psutil.Process().memory_info().rss
give_pages_back()
print(json.dumps([able, usual, kept, held - psutil.Process().memory_info().rss, faults()]))
"""


def test_pages_are_kept_until_they_are_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    able, usual, kept, returned, afterwards = json.loads(done.stdout)
    assert able
    # A page fault hands out 4 KiB, or 2 MiB where the system has huge pages for all.
    assert kept < usual / 10
    assert returned > 32 << 20
    assert afterwards > 10 * max(kept, 1)


def test_a_local_worker_keeps_maps_that_are_larger_than_the_heap_of_a_thread() -> None:
    """A thread's own heap ends at 64 MiB: what is larger would come from the system anew each time."""
    size = 160 << 20
    with connect("local", 1) as cluster:
        cluster.on_one(faults_of_large_maps, size)
        faults = cluster.on_one(faults_of_large_maps, size)
    assert faults < size // 4096 / 10
