"""The pass over a volume: its moments are those of all tissue voxels, wherever they lie."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volseg.blocks import Box
from volseg.ops.moments import pooled
from volseg.storage import slab_statistics, slabs, statistics

if TYPE_CHECKING:
    from collections.abc import Iterator

SHAPE = (4, 200, 310)
WHOLE = Box.of_shape(SHAPE)


@pytest.fixture(scope="module", autouse=True)
def small_windows() -> Iterator[None]:
    """Read a section in several windows, as of a section that is larger than memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "_WINDOW_BYTES", 1 << 14)
        yield


def islands(seed: int, dtype: str) -> np.ndarray:
    """Sections of zeros, each with a rectangle of tissue anywhere."""
    rng, voxels = np.random.default_rng(seed), np.zeros(SHAPE, dtype)
    scale, offset = {"uint8": (200, 20), "int16": (4000, -9000)}.get(dtype, (3000, 30_000))
    for section in voxels:
        y, x = (int(rng.integers(0, n - 8)) for n in SHAPE[1:])
        height, width = (int(rng.integers(8, n - a + 1)) for n, a in zip(SHAPE[1:], (y, x), strict=True))
        section[y : y + height, x : x + width] = (rng.random((height, width)) * scale + offset).astype(dtype)
    return voxels


def in_memory(voxels: np.ndarray, chunk: tuple[int, int, int]) -> Any:
    def read(box: Box) -> np.ndarray:
        return voxels[tuple(slice(a, b) for a, b in zip(box.start, box.stop, strict=True))]

    return SimpleNamespace(location="v", shape=voxels.shape, dtype=voxels.dtype.name, chunk=chunk, read=read)


@settings(max_examples=200)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["uint8", "uint16", "int16", "float32"]),
    st.tuples(st.integers(1, 12), st.sampled_from([16, 50, 64]), st.sampled_from([32, 64, 310])),
)
def test_moments_of_islands_are_those_of_the_whole_volume(seed: int, dtype: str, chunk: tuple[int, int, int]) -> None:
    voxels = islands(seed, dtype)
    volume = in_memory(voxels, chunk)
    parts = [slab_statistics(volume, sections, ("section",), WHOLE) for sections in slabs(SHAPE, chunk, 0, SHAPE[0])]
    moments = [one for part in parts for one in part.moments[0]]
    for one, section in zip(moments, voxels, strict=True):
        tissue = section[section != 0].astype(np.longdouble)
        assert one.voxels == tissue.size
        assert one.mean == pytest.approx(float(tissue.mean()), rel=1e-12)
        assert one.std == pytest.approx(float(tissue.std()), rel=1e-9)
    tissue = voxels[voxels != 0].astype(np.longdouble)
    whole = pooled(moments)
    assert whole.voxels == tissue.size
    assert whole.mean == pytest.approx(float(tissue.mean()), rel=1e-12)
    assert whole.std == pytest.approx(float(tissue.std()), rel=1e-9)
