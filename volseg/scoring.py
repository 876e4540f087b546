"""A probability map scored against ground truth, slab by slab."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from volseg.blocks import Box, parse_roi
from volseg.errors import SourceError
from volseg.evaluation import PixelCounts, PixelScores, membrane_of, pixel_scores
from volseg.ops import to_uint8
from volseg.storage import LABELS, Volume, is_stack, open_stack, open_volume
from volseg.storage.volume import channel_names

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volseg.storage import Stack

_SLAB = 16
_MEMBRANE = "membrane"


def score(
    prediction: str,
    truth: str,
    *,
    membrane: Literal["zero", "nonzero"] = "zero",
    roi: str | None = None,
    threshold: float = 0.5,
    channel: str | int | None = None,
) -> PixelScores:
    """Pixel scores of a map; memory holds sixteen sections at a time.

    Args:
        prediction: a uint8 (probability x 255) or float32 (0 to 1) volume.
        truth: a volume or a stack of sections of the same shape.
        membrane: which labels are membrane.
        roi: what to score, as z0:z1,y0:y1,x0:x1; all by default.
        threshold: probability that counts as membrane.
        channel: which of a prediction's channels, by name or number; by default the one called membrane.

    Raises:
        SourceError: something that cannot be read, no such channel, or shapes that differ.
        ConfigError: a truth of one kind only, or a threshold outside [0, 1].
    """
    predicted = _open_prediction(prediction, channel)
    labels = _open(truth)
    if predicted.shape != labels.shape:
        raise SourceError(f"prediction {prediction} is {predicted.shape}, truth {truth} is {labels.shape}: not alike")
    if predicted.dtype not in ("uint8", "float32"):
        raise SourceError(f"prediction {prediction} holds {predicted.dtype}; probabilities are uint8 or float32")
    region = Box.of_shape(predicted.shape) if roi is None else parse_roi(roi, predicted.shape)
    counts = PixelCounts()
    for first in range(region.start[0], region.stop[0], _SLAB):
        stop = min(first + _SLAB, region.stop[0])
        box = Box((first, *region.start[1:]), (stop, *region.stop[1:]))
        counts.add(_stored(predicted.read(box)), membrane_of(_read(labels, box), membrane))
    return pixel_scores(counts, threshold)


def _open_prediction(prediction: str, channel: str | int | None) -> Volume:
    if channel is None and _MEMBRANE in channel_names(prediction):
        channel = _MEMBRANE
    return open_volume(prediction, channel=channel)


def _open(truth: str) -> Volume | Stack:
    path = Path(truth)
    return (
        open_stack(path, LABELS)
        if "://" not in truth and path.exists() and is_stack(path)
        else open_volume(truth, LABELS)
    )


def _read(labels: Volume | Stack, box: Box) -> NDArray[Any]:
    if isinstance(labels, Volume):
        return labels.read(box)
    return labels.read(box.start[0], box.stop[0])[:, slice(box.start[1], box.stop[1]), slice(box.start[2], box.stop[2])]


def _stored(probability: NDArray[Any]) -> NDArray[np.uint8]:
    return probability if probability.dtype == np.uint8 else to_uint8(probability)
