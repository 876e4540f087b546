"""What Python users call. Each call imports what it needs: importing this module loads neither torch nor Dask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dask.array as da

    from volseg.cluster import Progress
    from volseg.config import PredictOptions
    from volseg.models.model import Model
    from volseg.prediction.run import Summary


def predict(
    source: str,
    target: str,
    *,
    model: str | Sequence[str],
    progress: Progress | None = None,
    **options: Unpack[PredictOptions],
) -> Summary:
    """Write the membrane probability map of a volume; the same as `volseg predict`.

    Args:
        source: a Zarr 2 or 3 array or an OME-Zarr, axes (z, y, x), local or behind a URL.
        target: the OME-Zarr 0.5 to make: uint8, probability x 255, same shape as the source.
        model: a model file or the name of a packaged model; of several the estimates are averaged.
        progress: told how far the run is; nothing is shown by default.
        options: block, halo, shard, chunk (voxels along z, y, x), halo_tolerance, tile, orientations, classes,
            uncertainty, roi, mask, scale_level, ignore_voxel_size, device, precision, cluster, workers, resume,
            overwrite. As on the command line.

    Returns:
        What was done, with the reason of each block that failed.

    Raises:
        VolsegError: one line that names the value and the way out.
    """
    from volseg.cluster import NullProgress
    from volseg.config import PredictConfig, checked
    from volseg.prediction.prepare import prepare
    from volseg.prediction.run import execute

    values: dict[str, Any] = {"source": source, "target": target, "model": model, **options}
    prepared = prepare(checked(PredictConfig, values, "predict"))
    return execute(prepared, progress or NullProgress())


def membrane_probability(array: da.Array, model: str, *, halo: str | Sequence[int] = "exact") -> da.Array:
    """The membrane probability of a Dask array, lazily: for notebooks, and volumes that are computed on the fly.

    Args:
        array: grey values (z, y, x); its chunks are the blocks.
        model: a model file or the name of a packaged model.
        halo: context around a block: `exact`, or voxels along (z, y, x).

    Returns:
        float32 in [0, 1], same shape as `array`, one task a block; computed in float32 on the CPU.

    Raises:
        VolsegError: an array that is no volume, or a halo that the network cannot take.
    """
    from volseg.prediction.dask_array import lazy_probability

    return lazy_probability(array, model, halo)


def load_model(file_or_name: str) -> Model:
    """Load a network as trained, with its normalisation and activation.

    Args:
        file_or_name: a model file or the name of a packaged model.

    Raises:
        ModelError: neither, or a file that is not a model.
    """
    from volseg.models import resolve_model
    from volseg.models.model import load_model_file

    return load_model_file(resolve_model(file_or_name))
