"""Scores of membrane probability and of cells against ground truth, from numpy arrays."""

from volseg.evaluation.metrics.instances import InstanceCounts, InstanceScores, instance_scores
from volseg.evaluation.metrics.pixels import (
    PixelCounts,
    PixelCurves,
    PixelScores,
    membrane_mask,
    pixel_curves,
    pixel_scores,
)
from volseg.evaluation.metrics.sections import SegmentationCounts, SegmentationScores, section_scores

__all__ = [
    "InstanceCounts",
    "InstanceScores",
    "PixelCounts",
    "PixelCurves",
    "PixelScores",
    "SegmentationCounts",
    "SegmentationScores",
    "instance_scores",
    "membrane_mask",
    "pixel_curves",
    "pixel_scores",
    "section_scores",
]
