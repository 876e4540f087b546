"""How others put sections through a network: the same weights, cut in their own way, from memory to memory.

A contender takes normalised sections (z, y, x) and gives the membrane probability, float32 of the same shape. All run
the network as a user of PyTorch does: eager, as loaded.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeAlias

import dask.array as da
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

if TYPE_CHECKING:
    from volseg.models.model import Model

Contender: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]
MISSING = (ImportError, OSError, RuntimeError)
"""What importing a peer raises where it, or something that it needs, is not there or does not fit."""


@dataclass(frozen=True)
class Cut:
    """How sections are cut, in voxels along y and x.

    Attributes:
        window: of the sliding window.
        overlap: of windows side by side, as a share.
        block: what one piece gives, of the contenders that have a halo.
        halo: around it.
        threads: of the contender in all.
        device: where the network is.
    """

    window: int = 512
    overlap: float = 0.25
    block: int = 512
    halo: int = 64
    threads: int = 2
    device: str = "cpu"


class Seen(nn.Module):
    """A model's network and activation in one, which keeps how many voxels went in."""

    def __init__(self, model: Model, threads: int) -> None:
        super().__init__()
        self._network, self._activate, self._threads = model.network, model.activate, threads
        self.voxels: list[int] = []

    def forward(self, tiles: Tensor) -> Tensor:
        """Map (N, 1, y, x) to probabilities of the same shape."""
        # Each thread of a process has its own count, and peers start threads.
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        self.voxels.append(tiles.numel())
        made: Tensor = self._activate(self._network(tiles))
        return made


def _autocast(device: str, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext() if dtype is None else torch.autocast(device, dtype)


def monai_window(seen: Seen, cut: Cut, dtype: torch.dtype | None = None) -> Contender:
    """MONAI's SlidingWindowInferer with its defaults but the window; autocast where a type is given."""
    inferer = import_module("monai.inferers").SlidingWindowInferer((cut.window, cut.window), overlap=cut.overlap)
    return _by_section(lambda section: inferer(section, seen), cut, dtype)


def plain_window(seen: Seen, cut: Cut, dtype: torch.dtype | None = None) -> Contender:
    """The same idea without MONAI: overlapping windows, evenly averaged."""
    return _by_section(lambda section: averaged_windows(section, seen, cut), cut, dtype)


def _by_section(infer: Callable[[Tensor], Tensor], cut: Cut, dtype: torch.dtype | None) -> Contender:
    def predict(sections: NDArray[np.float32]) -> NDArray[np.float32]:
        made = np.empty_like(sections)
        with torch.inference_mode(), _autocast(cut.device, dtype):
            for z, section in enumerate(sections):
                made[z] = infer(torch.from_numpy(section)[None, None].to(cut.device))[0, 0].float().cpu().numpy()
        return made

    return predict


def averaged_windows(section: Tensor, network: Callable[[Tensor], Tensor], cut: Cut) -> Tensor:
    """The mean of a network's overlapping windows.

    Args:
        section: (1, 1, y, x), at least a window along both.
        network: maps windows (1, 1, window, window).
        cut: window and overlap.
    """
    total, times = torch.zeros_like(section), torch.zeros_like(section)
    for y in window_starts(section.shape[2], cut):
        for x in window_starts(section.shape[3], cut):
            place = (..., slice(y, y + cut.window), slice(x, x + cut.window))
            total[place] += network(section[place])
            times[place] += 1
    return total / times


def window_starts(length: int, cut: Cut) -> list[int]:
    """Where windows begin along an axis; the last one ends with it.

    >>> window_starts(1024, Cut())
    [0, 384, 512]
    """
    step = int(cut.window * (1 - cut.overlap))
    return sorted({min(start, length - cut.window) for start in range(0, length - cut.window + step, step)})


def torch_em_halo(seen: Seen, cut: Cut) -> Contender:
    """torch-em's pipelined prediction with a halo."""
    import_torchvision()
    predict = import_module("torch_em.util.prediction").predict_with_halo_pipelined
    shape, halo = (cut.block, cut.block), (cut.halo, cut.halo)

    def by_section(sections: NDArray[np.float32]) -> NDArray[np.float32]:
        made = np.empty_like(sections)
        for section, place in zip(sections, made, strict=True):
            predict(section, seen, [cut.device], shape, halo, output=place[None], preprocess=None, disable_tqdm=True)
        return made

    return by_section


def dask_overlap(seen: Seen, cut: Cut) -> Contender:
    """Dask's map_overlap, as it is written in an afternoon: a thread of Dask for each thread of the contender."""

    def of_chunk(chunk: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            made: NDArray[np.float32] = seen(torch.from_numpy(np.ascontiguousarray(chunk))[:, None])[:, 0].numpy()
        return made

    def predict(sections: NDArray[np.float32]) -> NDArray[np.float32]:
        array = da.from_array(sections, chunks=(1, cut.block, cut.block))
        depth = {0: 0, 1: cut.halo, 2: cut.halo}
        lazy = array.map_overlap(of_chunk, depth=depth, boundary="reflect", dtype=np.float32, meta=sections[:0])
        made: NDArray[np.float32] = lazy.compute(scheduler="threads", num_workers=cut.threads)
        return made

    return predict


_OPERATORS: list[Any] = []


def import_torchvision() -> None:
    """Import torchvision, even one whose compiled part does not load; torch-em needs none of that.

    The wheels of PyPI are built for CUDA, and beside a torch for CPUs their operators are missing at the import.

    Raises:
        ImportError: there is none.
    """
    try:
        import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        _OPERATORS.append(library)  # they go with the library
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import_module("torchvision")


PEERS: dict[str, tuple[Callable[..., Contender], str, dict[str, Any]]] = {
    "MONAI float32": (monai_window, "monai", {}),
    "MONAI bfloat16": (monai_window, "monai", {"dtype": torch.bfloat16}),
    "torch-em float32": (torch_em_halo, "torch-em", {}),
    "Dask float32": (dask_overlap, "dask", {}),
}
"""Each contender: what makes it, its package, what it is made with."""


def made_ready(name: str, model: Model, cut: Cut) -> tuple[Contender, Seen]:
    """A contender by its name, and what counts its voxels; all that it imports late is imported.

    Raises:
        ImportError: or another of MISSING, where its package cannot be used.
    """
    make, _, options = PEERS[name]
    # Dask starts its threads itself, one for each of torch.
    seen = Seen(model, 1 if make is dask_overlap else cut.threads)
    small = replace(cut, window=64, block=64, halo=0)
    make(Seen(model, 1), small, **options)(np.zeros((1, 64, 64), np.float32))
    return make(seen, cut, **options), seen


def versions(names: list[str]) -> dict[str, str]:
    """The versions of the packages that some contenders come from."""
    return {package: version(package) for package in sorted({PEERS[name][1] for name in names})}
