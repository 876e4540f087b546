"""Sizes of VGG16, on which FCN and DeconvNet are based.

Simonyan, Zisserman: arXiv 1409.1556, configuration D.
"""

from __future__ import annotations

from volseg.errors import ConfigError

CONVOLUTIONS_PER_STAGE = (2, 2, 3, 3, 3)
"""3x3 convolutions before each of the five poolings."""


def stage_widths(width: int) -> list[int]:
    """Channels of the five stages, with `width` channels in the first.

    Raises:
        ConfigError: a width below 1.

    >>> stage_widths(64)
    [64, 128, 256, 512, 512]
    """
    if width < 1:
        raise ConfigError(f"width {width} must be at least 1")
    return [width, 2 * width, 4 * width, 8 * width, 8 * width]


def classifier_width(width: int) -> int:
    """Channels of the convolutions that replace VGG16's fully connected layers: 4096 at width 64."""
    return 64 * width
