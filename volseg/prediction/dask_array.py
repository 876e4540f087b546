"""Membrane probability of an array, lazily: Dask, NumPy or xarray in, the same out.

One slice-and-predict task per output block, with our own mirror; the constants of the input are one lazy reduction that
all blocks share.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any, TypeVar

import dask.array as da
import numpy as np
from dask.delayed import delayed

from volseg.blocks import Box, Footprint, Tiling, Zyx, mirror_span
from volseg.blocks.box import ceil_to, floor_to
from volseg.errors import ConfigError, GridError, SourceError
from volseg.inference import Device, Engine, Precision
from volseg.models import ModelHeader, read_card, resolve_model
from volseg.models.compatibility import refuse_dtype_mismatch
from volseg.ops import Grey, Statistics, reflect_gather
from volseg.ops.moments import NanTiles
from volseg.pipeline.block import erase_no_data
from volseg.storage import GREY
from volseg.storage.statistics import refuse_damage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from volseg.inference.tiled_predictor import TiledPredictor
    from volseg.ops import Normalization
    from volseg.ops.moments import Moments

ArrayT = TypeVar("ArrayT", bound=Any)
"""A Dask array, a NumPy array or an xarray.DataArray."""

_BLOCK = (16, 1024, 1024)
"""Blocks of a NumPy array, at most."""
_AXES = ("z", "y", "x")
_loading = threading.Lock()


def lazy_probability(
    array: ArrayT, model: str, halo: str | Sequence[int], device: Device = "cpu", precision: Precision = "float32"
) -> ArrayT:
    """See `volseg.membrane_probability`."""
    if device not in ("cpu", "cuda") or precision not in ("float32", "bfloat16", "float16"):
        raise ConfigError(
            f"device {device!r}, precision {precision!r}: devices are cpu, cuda; precisions float32, bfloat16, float16"
        )
    if device == "cpu" and precision == "float16":
        raise ConfigError("precision float16 needs device cuda; use bfloat16 or float32 on a CPU")
    # Threads: whatever Dask's scheduler leaves to torch.
    engine = Engine(device=device, precision=precision, batch=1, threads=0)
    if isinstance(array, da.Array):
        return _lazy_probability(array, model, halo, engine)  # type: ignore[return-value]  # as it came
    if isinstance(array, np.ndarray):
        return _of_numpy(array, model, halo, engine)  # type: ignore[return-value]  # likewise
    if hasattr(array, "dims") and hasattr(array, "data"):
        dims = tuple(map(str, array.dims))
        if set(dims) == set(_AXES) and dims != _AXES:
            raise SourceError(f"array has dimensions {', '.join(dims)}; transpose it to z, y, x")
        return array.copy(data=lazy_probability(array.data, model, halo, device, precision))  # type: ignore[no-any-return]
    raise SourceError(f"{type(array).__name__} is not an array; pass a Dask, NumPy or xarray array of axes (z, y, x)")


def _of_numpy(array: NDArray[Any], model: str, halo: str | Sequence[int], engine: Engine) -> NDArray[np.float32]:
    _refuse_other_than_volume(array)
    lazy = _lazy_probability(da.from_array(array, chunks=_BLOCK), model, halo, engine)
    result: NDArray[np.float32] = lazy.compute(scheduler="synchronous")
    return result


def _refuse_other_than_volume(array: da.Array | NDArray[Any]) -> None:
    if array.ndim != 3 or any(np.isnan(n) for n in array.shape):
        raise SourceError(f"array of shape {array.shape} is not a volume; pass an array of axes (z, y, x)")
    if array.dtype.name not in GREY:
        raise SourceError(f"array holds {array.dtype.name}; supported types: {', '.join(GREY)}")


def _lazy_probability(array: da.Array, model: str, halo: str | Sequence[int], engine: Engine) -> da.Array:
    _refuse_other_than_volume(array)
    header = read_card(resolve_model(model))
    refuse_dtype_mismatch(array.dtype.name, header.card.normalization)
    header.card.channels_of(("membrane",))
    footprint = header.card.footprint
    halo_zyx = _parse_halo(halo, footprint)
    statistics = _lazy_statistics(array, header)
    edges = [np.cumsum([0, *chunks]) for chunks in array.chunks]
    blocks = np.empty([len(chunks) for chunks in array.chunks], object)
    for place in product(*(range(len(chunks)) for chunks in array.chunks)):
        start, stop = (tuple(int(e[p + k]) for e, p in zip(edges, place, strict=True)) for k in (0, 1))
        write_box = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
        tiling = Tiling(footprint, _tile_core(write_box, footprint), halo_zyx)
        read_box = tiling.read_box(write_box)
        spans = [mirror_span(a, b, n) for a, b, n in zip(read_box.start, read_box.stop, array.shape, strict=True)]
        voxels = array[tuple(slice(a, b) for a, b in spans)]
        first = tuple(a for a, _ in spans)
        block = _Block(write_box, (first[0], first[1], first[2]), array.shape, tiling)
        task = delayed(_predict_block, pure=True)(voxels, block, header.path, statistics, engine)
        blocks[place] = da.from_delayed(task, write_box.shape, dtype=np.float32)
    whole: da.Array = da.block(blocks.tolist())
    return whole


def _parse_halo(halo: str | Sequence[int], footprint: Footprint) -> Zyx:
    if halo == "exact":
        return footprint.exact_halo()
    if isinstance(halo, str) or len(halo) != 3:
        raise GridError(f"halo {halo!r} is neither 'exact' nor three whole numbers (z, y, x)")
    z, y, x = (int(h) for h in halo)
    return footprint.validate_halo((z, y, x))


def _tile_core(write_box: Box, footprint: Footprint) -> Zyx:
    """One tile over the block's y and x; of a single section for a 2-D network."""
    start = tuple(floor_to(a, s) for a, s in zip(write_box.start, footprint.stride, strict=True))
    z, y, x = (ceil_to(b - a, s) for a, b, s in zip(start, write_box.stop, footprint.stride, strict=True))
    return (1 if footprint.dimensions == 2 else z), y, x


def _lazy_statistics(array: da.Array, header: ModelHeader) -> Any:
    """The constants: known already, or a lazy reduction over the whole array, a task per section."""
    normalization = header.card.normalization
    if normalization.scope == "training":
        return (normalization.training,)
    moments = delayed(_section_moments, pure=True)
    sections = [moments(array[z], z, normalization) for z in range(array.shape[0])]
    return delayed(normalization.constants_of, pure=True)(sections)


def _section_moments(section: NDArray[Any], z: int, normalization: Normalization) -> Moments:
    """Moments of a section's tissue.

    Raises:
        SourceError: voxels are NaN or infinite in the midst of tissue.
    """
    if section.dtype.kind == "f":
        tiles = NanTiles((0, 0), (section.shape[0], section.shape[1]))
        tiles.add(section)
        refuse_damage(tiles, z, "the array")
    return normalization.moments(section)


@dataclass(frozen=True, slots=True)
class _Block:
    """An output block of an array.

    Attributes:
        write_box: its voxels.
        first: voxel of the array at which its input begins.
        shape: of the array.
        tiling: of the block.
    """

    write_box: Box
    first: Zyx
    shape: Zyx
    tiling: Tiling


def _predict_block(
    voxels: NDArray[Any], block: _Block, model_file: str, statistics: Statistics, engine: Engine
) -> NDArray[np.float32]:
    read_box = block.tiling.read_box(block.write_box)
    raw = reflect_gather(voxels, block.first, read_box.start, read_box.stop, block.shape)
    with _loading:
        predict = _open_predictor(model_file, block.tiling, engine)
    (estimate,) = predict(Grey.of(raw, statistics, read_box.start[0]), block.write_box)
    written = raw[block.write_box.relative_to(read_box.start).slices]
    erase_no_data([estimate.probability], written, statistics, block.write_box.start[0])
    membrane: NDArray[np.float32] = estimate.probability[0]
    return membrane


@lru_cache(maxsize=8)
def _open_predictor(model_file: str, tiling: Tiling, engine: Engine) -> TiledPredictor:
    """Blocks at the volume's end may have tilings of their own."""
    from volseg.inference import open_predictor  # noqa: PLC0415 - a graph is built without torch

    digest = read_card(resolve_model(model_file)).digest
    return open_predictor(model_file, digest, tiling, engine)
