"""The public functions. Each imports what it needs: importing this module loads neither torch nor Dask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from volseg.cluster import Progress
    from volseg.config import ConvertOptions, PredictOptions, PyramidOptions, VerifyOptions
    from volseg.conversion.pyramid import PyramidSummary
    from volseg.conversion.run import Conversion
    from volseg.evaluation.evaluate import MapScores
    from volseg.evaluation.metrics import InstanceScores
    from volseg.inference import Device, Precision
    from volseg.models.model import Model
    from volseg.prediction.summary import Summary
    from volseg.prediction.verification.report import VerifyProgress, VerifyReport
    from volseg.training.job import ProgressReporter
    from volseg.training.trainer import TrainingResult
    from volseg.view import Session

ArrayT = TypeVar("ArrayT", bound=Any)
"""A Dask array, a NumPy array or an xarray.DataArray."""


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
        source: a Zarr 2 or 3 array or an OME-Zarr, local or a URL, FILE.h5:DATASET, a TIFF or a folder of sections;
            axes (z, y, x).
        target: the OME-Zarr 0.5 to create: uint8, probability x 255, same shape as the source.
        model: a model file or the name of a packaged model; the estimates of several are averaged.
        progress: receives the progress; nothing is shown by default.
        options: block, halo, shard, chunk (voxels along z, y, x), halo_tolerance, tile, orientations, classes,
            uncertainty, roi, mask, scale_level, axes, channel, missing, missing_chunks, voxel_size (nanometres),
            ignore_voxel_size, at_model_size, device, precision, cluster, workers, part, max_failed, block_timeout,
            resume, overwrite. As on the command line.

    Returns:
        The result, with the reason of each failed block.

    Raises:
        VolsegError: one line that names the value and the way out.
    """
    from volseg.cluster import NullProgress
    from volseg.config import PredictConfig, validate
    from volseg.prediction.parts import WAITING_FOR_TARGET, prepared
    from volseg.prediction.run import execute

    values: dict[str, Any] = {"source": source, "target": target, "model": model, **options}
    config, shown = validate(PredictConfig, values, "predict"), progress or NullProgress()
    with prepared(config, lambda: shown.stage(WAITING_FOR_TARGET)) as (spec, recorded, on_ready):
        return execute(spec, recorded, shown, part=config.part, on_ready=on_ready)


def verify(target: str, *, progress: VerifyProgress | None = None, **options: Unpack[VerifyOptions]) -> VerifyReport:
    """Compare a map with the marks and the record of its run; the same as `volseg verify`.

    Args:
        target: the target of a `predict`.
        progress: receives the progress; nothing is shown by default.
        options: deep, repair, source, model, mask, cluster, workers, tls, resume, seams, block. As on the command
            line.

    Returns:
        The report; `sound`, `complete` and `seamed` say whether the map is whole.

    Raises:
        VolsegError: one line that names the value and the way out.
    """
    from volseg.config import VerifyConfig, validate
    from volseg.prediction.verification.report import NullVerifyProgress
    from volseg.prediction.verification.verify import verify as run_verification

    values: dict[str, Any] = {"target": target, **options}
    return run_verification(validate(VerifyConfig, values, "verify"), progress or NullVerifyProgress())


def train(
    run_file: str | Path,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    progress: ProgressReporter | None = None,
) -> TrainingResult:
    """Train a network; the same as `volseg train`.

    Args:
        run_file: the TOML file of the training.
        overrides: keys of it to override, as KEY=VALUE, such as `fit.steps=500`.
        resume: continue from the checkpoint in its output folder, if there is one.
        progress: receives the progress; nothing is shown by default.

    Raises:
        VolsegError: one line that names the value and the way out.
    """
    from volseg.config import TrainConfig, read_toml
    from volseg.training.job import NullReporter
    from volseg.training.run import train as run_training

    config = read_toml(run_file, TrainConfig, overrides)
    return run_training(config, progress or NullReporter(), resume=resume)


def evaluate(prediction: str, truth: str, **options: Any) -> MapScores | InstanceScores:
    """Score a map or a segmentation against ground truth; the same as `volseg evaluate`.

    Args:
        prediction: a volume (z, y, x) of membrane probabilities (uint8, float32) or of ids (other integers).
        truth: a volume of labels of the same shape.
        options: fields of `volseg.evaluation.evaluate.EvaluateOptions`: kind, membrane, ignore, roi, threshold,
            channel, pixels_only, ignore_place.

    Raises:
        VolsegError: one line that names the value and the way out.
    """
    from volseg.evaluation.evaluate import EvaluateOptions
    from volseg.evaluation.evaluate import evaluate as score

    return score(prediction, truth, EvaluateOptions(**options))


def convert(
    source: str, target: str | Path, *, progress: Progress | None = None, **options: Unpack[ConvertOptions]
) -> Conversion:
    """Copy a volume of any format into an OME-Zarr 0.5, or another format; the same as `volseg convert`.

    Args:
        source: a Zarr, FILE.h5:DATASET, a multi-page TIFF, a folder of sections, or what `volseg convert` lists.
        target: the volume to create, of the source's type; its name, or `format`, says which format it gets.
        progress: receives the progress; nothing is shown by default.
        options: voxel_size (nanometres along z, y, x), axes, channel, missing, missing_chunks, scale_level, roi,
            dtype, range, format, chunk, shard (voxels along z, y, x), no_shards, cluster, workers, tls, resume,
            overwrite. As on the command line.

    Returns:
        The result, with the reason of each failed block; the target is there if `complete`.

    Raises:
        VolsegError: one line that names the value and the way out.
    """
    from volseg.cluster import NullProgress
    from volseg.config import ConvertConfig, validate
    from volseg.conversion.prepare import prepare
    from volseg.conversion.run import execute

    values: dict[str, Any] = {"source": source, "target": target, **options}
    spec, recorded = prepare(validate(ConvertConfig, values, "convert"))
    return execute(spec, recorded, progress or NullProgress())


def pyramid(
    target: str | Path, *, progress: Progress | None = None, **options: Unpack[PyramidOptions]
) -> PyramidSummary:
    """Add coarser levels to an OME-Zarr 0.4 or 0.5; the same as `volseg pyramid`.

    Args:
        target: a local image with axes (z, y, x), and channels or times before them or not.
        progress: receives the progress; nothing is shown by default.
        options: levels, labels, missing_chunks, cluster, workers, tls, resume, check, overwrite. As on the command
            line.

    Returns:
        The result, with the reason of each failed block; the target lists the levels if `complete`.

    Raises:
        VolsegError: one line that names the value and the way out.
    """
    from volseg.cluster import NullProgress
    from volseg.config import PyramidConfig, validate
    from volseg.conversion.pyramid import execute_pyramid
    from volseg.conversion.pyramid_prepare import prepare_pyramid

    values: dict[str, Any] = {"target": target, **options}
    return execute_pyramid(prepare_pyramid(validate(PyramidConfig, values, "pyramid")), progress or NullProgress())


def membrane_probability(
    array: ArrayT,
    model: str,
    *,
    halo: Literal["exact"] | Sequence[int] = "exact",
    device: Device = "cpu",
    precision: Precision = "float32",
) -> ArrayT:
    """The membrane probability of an array: for notebooks, and volumes that are computed on the fly.

    Args:
        array: grey values (z, y, x): a Dask array, whose chunks are the blocks, a NumPy array, or an xarray.DataArray
            of either.
        model: a model file or the name of a packaged model.
        halo: context around a block: `exact`, or voxels along (z, y, x).
        device: `cpu`, or `cuda` of the process that computes.
        precision: of weights and activations: float32, bfloat16 or float16 (CUDA only).

    Returns:
        float32 in [0, 1], same shape and kind of array. A Dask array is lazy, with one task per block; a NumPy array
        is computed at once.

    Raises:
        VolsegError: an array that is not a volume, or a halo that does not suit the network.
    """
    from volseg.prediction.dask_array import lazy_probability

    return lazy_probability(array, model, halo, device, precision)


def list_models() -> dict[str, list[dict[str, Any]]]:
    """The networks and the packaged models, with reach, stride and parameters; the same as `volseg models --json`."""
    from volseg.models.catalog import list_models as catalog

    return catalog()


def open_viewer(sources: Sequence[str], *, bind: str = "127.0.0.1", port: int = 0, host: str | None = None) -> Session:
    """Show volumes in Neuroglancer; the same as `volseg view`.

    Args:
        sources: paths or URLs of Zarr arrays or OME-Zarr groups.
        bind: address to serve them at.
        port: to serve them at; any free one by default.
        host: host name in the viewer's URL; by default `bind`, or this machine's name if `bind` is all addresses.

    Returns:
        The session, with its URL; closing it stops the server.

    Raises:
        VolsegError: one line that names the value and the way out.
    """
    from volseg.view import open_viewer as open_session

    return open_session(sources, bind=bind, port=port, host=host)


def load_model(file_or_name: str) -> Model:
    """Load a network as trained, with its normalisation and activation.

    Args:
        file_or_name: a model file or the name of a packaged model.

    Raises:
        ConfigError: it is neither.
        ModelError: the file is not a valid model.
    """
    from volseg.models import resolve_model
    from volseg.models.model import load_model_file

    return load_model_file(resolve_model(file_or_name))
