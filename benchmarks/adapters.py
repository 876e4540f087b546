"""Adapters of other tools: prediction of sections with the same weights, in memory.

Each is a function from normalised sections (z, y, x) to membrane probability, float32 of the same shape. All run the
network eager, as loaded.
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

PredictSections: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]
IMPORT_ERRORS = (ImportError, OSError, RuntimeError)
"""Errors at the import of a peer if it or one of its dependencies is missing or incompatible."""


@dataclass(frozen=True)
class PeerSettings:
    """Sizes in voxels along y and x, and resources.

    Attributes:
        window: side of the sliding window.
        overlap: of neighbouring windows, as a fraction of the window.
        block: side of a block without halo.
        halo: context on each side of a block.
        threads: of the peer in total.
        device: of the network.
    """

    window: int = 512
    overlap: float = 0.25
    block: int = 512
    halo: int = 64
    threads: int = 2
    device: str = "cpu"


class CountingNetwork(nn.Module):
    """A model's network and activation, which records the voxels of each input."""

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
        probability: Tensor = self._activate(self._network(tiles))
        return probability


def _autocast(device: str, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext() if dtype is None else torch.autocast(device, dtype)


def monai_window(network: CountingNetwork, settings: PeerSettings, dtype: torch.dtype | None = None) -> PredictSections:
    """MONAI's SlidingWindowInferer with its defaults except the window; under autocast if a type is given."""
    inferer = import_module("monai.inferers").SlidingWindowInferer(
        (settings.window, settings.window), overlap=settings.overlap
    )
    return _per_section(lambda section: inferer(section, network), settings, dtype)


def plain_window(network: CountingNetwork, settings: PeerSettings, dtype: torch.dtype | None = None) -> PredictSections:
    """Like `monai_window` without MONAI: the mean of overlapping windows."""
    return _per_section(lambda section: averaged_windows(section, network, settings), settings, dtype)


def _per_section(
    infer: Callable[[Tensor], Tensor], settings: PeerSettings, dtype: torch.dtype | None
) -> PredictSections:
    def predict(sections: NDArray[np.float32]) -> NDArray[np.float32]:
        probability = np.empty_like(sections)
        with torch.inference_mode(), _autocast(settings.device, dtype):
            for z, section in enumerate(sections):
                probability[z] = (
                    infer(torch.from_numpy(section)[None, None].to(settings.device))[0, 0].float().cpu().numpy()
                )
        return probability

    return predict


def averaged_windows(section: Tensor, network: Callable[[Tensor], Tensor], settings: PeerSettings) -> Tensor:
    """Average a network's output over overlapping windows.

    Args:
        section: (1, 1, y, x), at least as large as a window.
        network: maps windows (1, 1, window, window).
        settings: window and overlap.
    """
    total, times = torch.zeros_like(section), torch.zeros_like(section)
    for y in window_starts(section.shape[2], settings):
        for x in window_starts(section.shape[3], settings):
            window = (..., slice(y, y + settings.window), slice(x, x + settings.window))
            total[window] += network(section[window])
            times[window] += 1
    return total / times


def window_starts(length: int, settings: PeerSettings) -> list[int]:
    """Starts of the windows along an axis; the last window ends with the axis.

    >>> window_starts(1024, PeerSettings())
    [0, 384, 512]
    """
    step = int(settings.window * (1 - settings.overlap))
    return sorted({min(start, length - settings.window) for start in range(0, length - settings.window + step, step)})


def torch_em_halo(network: CountingNetwork, settings: PeerSettings) -> PredictSections:
    """torch-em's `predict_with_halo_pipelined`."""
    import_torchvision()
    predict = import_module("torch_em.util.prediction").predict_with_halo_pipelined
    shape, halo = (settings.block, settings.block), (settings.halo, settings.halo)

    def predict_sections(sections: NDArray[np.float32]) -> NDArray[np.float32]:
        probability = np.empty_like(sections)
        for section, output in zip(sections, probability, strict=True):
            predict(
                section, network, [settings.device], shape, halo, output=output[None], preprocess=None,
                disable_tqdm=True,
            )  # fmt: skip
        return probability

    return predict_sections


def dask_overlap(network: CountingNetwork, settings: PeerSettings) -> PredictSections:
    """Dask's map_overlap; as many threads of Dask as the settings allow, each with one thread of torch."""

    def predict_chunk(chunk: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            probability: NDArray[np.float32] = network(torch.from_numpy(np.ascontiguousarray(chunk))[:, None])[
                :, 0
            ].numpy()
        return probability

    def predict(sections: NDArray[np.float32]) -> NDArray[np.float32]:
        array = da.from_array(sections, chunks=(1, settings.block, settings.block))
        depth = {0: 0, 1: settings.halo, 2: settings.halo}
        lazy = array.map_overlap(predict_chunk, depth=depth, boundary="reflect", dtype=np.float32, meta=sections[:0])
        probability: NDArray[np.float32] = lazy.compute(scheduler="threads", num_workers=settings.threads)
        return probability

    return predict


_OPERATORS: list[Any] = []


def import_torchvision() -> None:
    """Import torchvision even if its compiled operators do not load; torch-em does not use them.

    The wheels of PyPI are built for CUDA, and with a torch for CPUs their operators are missing at the import.

    Raises:
        ImportError: torchvision is not installed.
    """
    try:
        import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        _OPERATORS.append(library)  # the operators exist as long as the library
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import_module("torchvision")


PEERS: dict[str, tuple[Callable[..., PredictSections], str, dict[str, Any]]] = {
    "MONAI float32": (monai_window, "monai", {}),
    "MONAI bfloat16": (monai_window, "monai", {"dtype": torch.bfloat16}),
    "torch-em float32": (torch_em_halo, "torch-em", {}),
    "Dask float32": (dask_overlap, "dask", {}),
}
"""Name of each peer: its factory, its package, the factory's options."""


def load_peer(name: str, model: Model, settings: PeerSettings) -> tuple[PredictSections, CountingNetwork]:
    """Create a peer and the network that counts its voxels; runs it once, so that lazy imports are done.

    Raises:
        ImportError: or another of IMPORT_ERRORS, if its package cannot be used.
    """
    make, _, options = PEERS[name]
    # Dask has threads of its own; torch uses one in each.
    network = CountingNetwork(model, 1 if make is dask_overlap else settings.threads)
    small = replace(settings, window=64, block=64, halo=0)
    make(CountingNetwork(model, 1), small, **options)(np.zeros((1, 64, 64), np.float32))
    return make(network, settings, **options), network


def versions(names: list[str]) -> dict[str, str]:
    """Versions of the packages of some peers."""
    return {package: version(package) for package in sorted({PEERS[name][1] for name in names})}
