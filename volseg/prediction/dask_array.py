"""The lazy form: a Dask array of grey values in, a Dask array of membrane probability out.

One slice-and-predict task an output block, with our own mirror; constants are one lazy reduction that all blocks share.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from dask.delayed import delayed

from volseg.blocks import Box, Footprint, Tiling, Zyx, mirror_span
from volseg.blocks.box import ceil_to, floor_to
from volseg.errors import GridError, SourceError
from volseg.inference import Engine
from volseg.models import ModelHeader, read_card, resolve_model
from volseg.models.compatibility import refuse_other_type
from volseg.ops import Grey, Statistics, reflect_gather
from volseg.ops.normalize import moments
from volseg.pipeline.block import refuse_non_finite
from volseg.storage import GREY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import fx

    from volseg.inference.tiled_predictor import TiledPredictor
    from volseg.models.model import Model


_ENGINE = Engine(device="cpu", precision="float32", batch=1, threads=0)
"""The network as it is: float32 on the CPU, with whatever threads Dask's scheduler leaves it."""
_loading = threading.Lock()


def lazy_probability(array: da.Array, model: str, halo: str | Sequence[int]) -> da.Array:
    """See `volseg.membrane_probability`."""
    if array.ndim != 3 or any(np.isnan(n) for n in array.shape):
        raise SourceError(f"array of shape {array.shape} is not a volume; pass a Dask array of axes (z, y, x)")
    if array.dtype.name not in GREY:
        raise SourceError(f"array holds {array.dtype.name}; volseg reads {', '.join(GREY)}")
    header = read_card(resolve_model(model))
    refuse_other_type(array.dtype.name, header.card.normalization)
    header.card.channels_of(("membrane",))
    footprint = header.card.footprint
    halo_zyx = _halo(halo, footprint)
    statistics = _statistics(array, header)
    starts = [np.cumsum([0, *chunks]) for chunks in array.chunks]
    places = product(*(range(len(chunks)) for chunks in array.chunks))
    blocks = np.empty([len(chunks) for chunks in array.chunks], object)
    for place in places:
        low, high = (tuple(int(s[p + k]) for s, p in zip(starts, place, strict=True)) for k in (0, 1))
        write_box = Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))
        tiling = Tiling(footprint, _core(write_box, footprint), halo_zyx)
        spans = [
            mirror_span(a, b, n)
            for a, b, n in zip(
                tiling.read_box(write_box).start, tiling.read_box(write_box).stop, array.shape, strict=True
            )
        ]
        held = array[tuple(slice(a, b) for a, b in spans)]
        task = delayed(_predict_block, pure=True)(
            held, write_box, tuple(a for a, _ in spans), tuple(array.shape), header.path, tiling, statistics
        )
        blocks[place] = da.from_delayed(task, write_box.shape, dtype=np.float32)
    whole: da.Array = da.block(blocks.tolist())
    return whole


def _halo(halo: str | Sequence[int], footprint: Footprint) -> Zyx:
    if halo == "exact":
        return footprint.exact_halo()
    if isinstance(halo, str) or len(halo) != 3:
        raise GridError(f"halo {halo!r} is neither 'exact' nor three whole numbers (z, y, x)")
    z, y, x = (int(h) for h in halo)
    return footprint.checked_halo((z, y, x))


def _core(write_box: Box, footprint: Footprint) -> Zyx:
    """One tile over the block's y and x, a section at a time for a network that sees one section."""
    start = tuple(floor_to(a, s) for a, s in zip(write_box.start, footprint.stride, strict=True))
    z, y, x = (ceil_to(b - a, s) for a, b, s in zip(start, write_box.stop, footprint.stride, strict=True))
    return (1 if footprint.dimensions == 2 else z), y, x


def _statistics(array: da.Array, header: ModelHeader) -> Any:
    """The constants: known now, or a lazy reduction over the whole array, a task a section or one in all."""
    normalization = header.card.normalization
    if normalization.mode == "fixed":
        return (normalization.training,)
    moment = delayed(moments, pure=True)
    if normalization.mode == "volume":
        return delayed(lambda pair: (pair,))(moment(array))
    return delayed(tuple)([moment(array[z]) for z in range(array.shape[0])])


def _predict_block(
    held: NDArray[Any],
    write_box: Box,
    low: Zyx,
    shape: Zyx,
    model_file: str,
    tiling: Tiling,
    statistics: Statistics,
) -> NDArray[np.float32]:
    read_box = tiling.read_box(write_box)
    raw = reflect_gather(held, low, read_box.start, read_box.stop, shape)
    refuse_non_finite(raw, read_box, shape, f"block {write_box}")
    (probability,) = _predictor(model_file, tiling)(Grey.of(raw, statistics, read_box.start[0]), write_box)
    membrane: NDArray[np.float32] = probability[0]
    return membrane


def _predictor(model_file: str, tiling: Tiling) -> TiledPredictor:
    with _loading:
        return _opened(model_file, tiling)


@lru_cache(maxsize=8)
def _opened(model_file: str, tiling: Tiling) -> TiledPredictor:
    """Blocks at the volume's end may have tilings of their own."""
    from volseg.inference.tiled_predictor import TiledPredictor  # noqa: PLC0415 - a graph is built without torch

    model, network = _model(model_file)
    return TiledPredictor(network, model.activate, tiling, _ENGINE)


@lru_cache(maxsize=2)
def _model(model_file: str) -> tuple[Model, fx.GraphModule]:
    from volseg.inference.optimize.optimize import prepared  # noqa: PLC0415 - a graph is built without torch
    from volseg.models.model import load_model_file  # noqa: PLC0415 - likewise

    model = load_model_file(model_file)
    return model, prepared(model.network, _ENGINE.device, _ENGINE.precision)
