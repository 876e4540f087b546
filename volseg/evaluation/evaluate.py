"""Scores predictions against ground truth, slab by slab."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from volseg.blocks import Box, parse_roi
from volseg.errors import ConfigError, SourceError
from volseg.evaluation.metrics import (
    InstanceCounts,
    InstanceScores,
    PixelCounts,
    PixelCurves,
    PixelScores,
    SegmentationCounts,
    SegmentationScores,
    membrane_mask,
    pixel_curves,
    pixel_scores,
)
from volseg.ops import to_uint8
from volseg.storage import LABELS, ReadOptions, is_zarr, open_sections
from volseg.storage.readers import Sections
from volseg.storage.zarr_metadata import channel_names
from volseg.text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from volseg.storage import Stack

_SLAB_VOXELS = 2**23
_SLAB = 16
_MEMBRANE = "membrane"
_PROBABILITIES = ("uint8", "float32")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """Options of an evaluation.

    Attributes:
        kind: `probability` of membrane, `instances` (ids), or `auto`: uint8 and float32 are probabilities, other
            integers ids.
        membrane: labels of membrane in the truth: `zero` (cells have ids), or `nonzero` (a mask).
        ignore: label of voxels that are not scored, like those below 0.
        roi: region to score, as z0:z1,y0:y1,x0:x1; by default the whole volume.
        threshold: probability that counts as membrane.
        channel: of the prediction, by name or number; by default the one called membrane.
        pixels_only: leave out V_rand and V_info, which take about a second for a section of 1024 x 1024 pixels.
        ignore_place: accept a truth whose voxel size or translation differs from the prediction's.
    """

    kind: Literal["auto", "probability", "instances"] = "auto"
    membrane: Literal["zero", "nonzero"] = "zero"
    ignore: int | None = None
    roi: str | None = None
    threshold: float = 0.5
    channel: str | int | None = None
    pixels_only: bool = False
    ignore_place: bool = False


@dataclass(frozen=True, slots=True)
class MapScores:
    """Scores of a membrane probability map.

    Attributes:
        pixels: pixel scores at a threshold.
        curves: pixel scores at all thresholds.
        segmentation: V_rand and V_info; None with `pixels_only`.
    """

    pixels: PixelScores
    curves: PixelCurves
    segmentation: SegmentationScores | None


DEFAULT = EvaluateOptions()
ProgressCallback: TypeAlias = Callable[[str, int, int], None]
"""Called with the kind of score, the number of sections done, and their total."""


def evaluate(
    prediction: str, truth: str, options: EvaluateOptions = DEFAULT, on_progress: ProgressCallback | None = None
) -> MapScores | InstanceScores:
    """Score a prediction as a map or as instances, depending on its type and `options.kind`.

    Args:
        prediction: a volume or a stack of sections (z, y, x): membrane probabilities, or ids.
        truth: another of the same shape, of any integer type.
        options: of the evaluation.
        on_progress: receives the progress.

    Raises:
        SourceError: a source that cannot be read, an unknown channel, or shapes or places that differ.
        ConfigError: options that do not apply to the kind, or nothing to score.
    """
    pair = _open_pair(prediction, truth, options)
    return _map_scores(pair, on_progress) if pair.kind == "probability" else _instance_scores(pair, on_progress)


def evaluate_map(
    prediction: str, truth: str, options: EvaluateOptions = DEFAULT, on_progress: ProgressCallback | None = None
) -> MapScores:
    """Score a membrane probability map: uint8 (probability x 255) or float32 from 0 to 1; the rest as in `evaluate`."""
    return _map_scores(_open_pair(prediction, truth, replace(options, kind="probability")), on_progress)


def evaluate_instances(
    prediction: str, truth: str, options: EvaluateOptions = DEFAULT, on_progress: ProgressCallback | None = None
) -> InstanceScores:
    """Score ids, of any integer type; the rest as in `evaluate`."""
    return _instance_scores(_open_pair(prediction, truth, replace(options, kind="instances")), on_progress)


@dataclass(frozen=True, slots=True)
class _Slab:
    """Consecutive sections of the region; arrays (z, y, x), the number of sections up to its end, and in total."""

    predicted: NDArray[Any]
    labels: NDArray[Any]
    ignored: NDArray[np.bool_]
    done: int
    sections: int


@dataclass(frozen=True, slots=True)
class _Pair:
    """An open prediction and its truth, of the same shape."""

    prediction: str
    kind: Literal["probability", "instances"]
    predicted: Stack
    labels: Stack
    region: Box
    options: EvaluateOptions

    def slabs(self) -> Iterator[_Slab]:
        """Read the region a few sections at a time, so that memory does not grow with the volume."""
        (first, *low), (last, *high) = self.region.start, self.region.stop
        rows, columns = self.region.shape[1:]
        depth = max(1, min(_SLAB, _SLAB_VOXELS // (rows * columns)))
        for z in range(first, last, depth):
            stop = min(z + depth, last)
            box = Box((z, low[0], low[1]), (stop, high[0], high[1]))
            predicted, labels = _read(self.predicted, box), _read(self.labels, box)
            ignored = labels < 0
            if self.options.ignore is not None:
                ignored |= labels == self.options.ignore
            yield _Slab(predicted, labels, ignored, stop - first, last - first)


def _map_scores(pair: _Pair, on_progress: ProgressCallback | None) -> MapScores:
    options, counts = pair.options, PixelCounts()
    # Pixels first, since an error that there is nothing to score then comes before the slow part.
    for slab in pair.slabs():
        counts.add(
            _to_bytes(slab.predicted, pair.prediction), membrane_mask(slab.labels, options.membrane), slab.ignored
        )
        if on_progress is not None:
            on_progress("pixels", slab.done, slab.sections)
    pixels, curves = pixel_scores(counts, options.threshold), pixel_curves(counts)
    if options.pixels_only:
        return MapScores(pixels, curves, None)
    cells = SegmentationCounts()
    for slab in pair.slabs():
        ids = slab.labels if options.membrane == "zero" else slab.labels == 0
        for z in range(len(ids)):
            section = slice(z, z + 1)
            cells.add(slab.predicted[section], ids[section], slab.ignored[section])
            if on_progress is not None:
                on_progress("cells", slab.done - len(ids) + z + 1, slab.sections)
    return MapScores(pixels, curves, cells.scores())


def _instance_scores(pair: _Pair, on_progress: ProgressCallback | None) -> InstanceScores:
    if pair.options.membrane == "nonzero" or pair.options.pixels_only:
        option = "--pixels-only" if pair.options.pixels_only else "--membrane nonzero"
        raise ConfigError(f"{option} is for probability maps, and {pair.prediction} holds ids; leave it out")
    counts = InstanceCounts()
    for slab in pair.slabs():
        counts.add(slab.predicted, slab.labels, slab.ignored)
        if on_progress is not None:
            on_progress("cells", slab.done, slab.sections)
    if counts.cells == 1:
        raise ConfigError("the truth holds one id besides 0, like a mask; give a truth with one id for each cell")
    return counts.scores()


def _open_pair(prediction: str, truth: str, options: EvaluateOptions) -> _Pair:
    predicted, labels = _open_prediction(prediction, options.channel), _open(truth, LABELS)
    if predicted.shape != labels.shape:
        raise SourceError(
            f"prediction {prediction} is {predicted.shape}, truth {truth} is {labels.shape}; the shapes must be equal"
        )
    if predicted.place.differs(labels.place) and not options.ignore_place:
        raise SourceError(
            f"prediction {prediction} has {predicted.place}, truth {truth} has {labels.place} (z, y, x); give the "
            "truth of the same place, or --ignore-place if their voxels belong together"
        )
    kind = _resolve_kind(prediction, predicted.dtype, options.kind)
    region = Box.of_shape(predicted.shape) if options.roi is None else parse_roi(options.roi, predicted.shape)
    return _Pair(prediction, kind, predicted, labels, region, options)


def _resolve_kind(prediction: str, dtype: str, requested: str) -> Literal["probability", "instances"]:
    """Resolve the kind `auto`, and check the type."""
    if requested not in ("auto", "probability", "instances"):
        hint = did_you_mean(requested, ("auto", "probability", "instances"))
        raise ConfigError(f"unknown kind {requested!r}{hint}; choose from auto, probability, instances")
    if requested != "instances" and dtype in _PROBABILITIES:
        return "probability"
    if requested != "probability" and "int" in dtype:
        return "instances"
    hints = {
        "probability": "probabilities are uint8 or float32; give --kind instances if these are ids",
        "instances": "ids are integers; store them as such, or give --kind probability",
        "auto": "probabilities are uint8 or float32, ids other integers",
    }
    error = SourceError if requested == "auto" else ConfigError
    raise error(f"prediction {prediction} holds {dtype}; {hints[requested]}")


def _open_prediction(prediction: str, channel: str | int | None) -> Stack:
    kinds = (*_PROBABILITIES, *LABELS)
    if channel is None and is_zarr(prediction) and _MEMBRANE in channel_names(prediction):
        channel = _MEMBRANE
    return open_sections(prediction, kinds, ReadOptions(channel=channel))


def _open(location: str, dtypes: tuple[str, ...]) -> Stack:
    return open_sections(location, dtypes)


def _read(source: Stack, box: Box) -> NDArray[Any]:
    """Read a box; files of sections are read by whole sections."""
    if isinstance(source, Sections):
        return source.volume.read(box)
    (first, *low), (stop, *high) = box.start, box.stop
    return source.read(first, stop)[:, low[0] : high[0], low[1] : high[1]]


def _to_bytes(probability: NDArray[Any], prediction: str) -> NDArray[np.uint8]:
    """Convert probabilities to uint8.

    Raises:
        SourceError: floats outside [0, 1].
    """
    if probability.dtype == np.uint8:
        return probability
    low, high = float(probability.min()), float(probability.max())
    if not (low >= 0 and high <= 1):  # NaN too
        raise SourceError(
            f"prediction {prediction} holds values from {low:g} to {high:g}; probabilities lie in [0, 1] "
            "(ids are scored from an integer type)"
        )
    return to_uint8(probability)
