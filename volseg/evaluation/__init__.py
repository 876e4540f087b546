"""Scores of membrane probability against ground truth: numpy in, numbers out."""

from volseg.evaluation.pixels import PixelCounts, PixelScores, membrane_of, pixel_scores

__all__ = ["PixelCounts", "PixelScores", "membrane_of", "pixel_scores"]
