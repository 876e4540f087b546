"""All augmentation in a row, as a run file asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from volseg.training.augmentation.blur import Blur, Defocus
from volseg.training.augmentation.elastic import Elastic
from volseg.training.augmentation.fold import Fold
from volseg.training.augmentation.intensity import Brighten, Contrast, Gamma, Miss, Noise, Shade
from volseg.training.augmentation.misalignment import Misalign
from volseg.training.augmentation.orientations import Orient
from volseg.training.augmentation.rng import rngs_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from volseg.config.train_tables import AugmentationSettings
    from volseg.training.augmentation.rng import Augmentation
    from volseg.training.data.sample import Sample


def make_augmentation(settings: AugmentationSettings, *, flat: bool) -> Callable[[Sample], Sample]:
    """What varies a sample, on the device that holds it.

    First geometry, then sharpness, grey values, defects, noise, as an image comes about; last what was never imaged.
    What happens to a patch is decided by its own seed: alone or in any batch it becomes the same, to float32's
    rounding on one device (noise is another on another kind of device).

    Args:
        settings: the `[augmentation]` table.
        flat: the network sees sections, alone or with neighbours, and not a stack: z is never flipped.

    Returns:
        A function of a sample that gives another of the same shapes and types, with the label values of the first
        and IGNORED; the sample itself, where nothing is switched on.
    """
    steps = [(stream, step) for stream, (amount, step) in enumerate(_in_order(settings, flat=flat)) if amount]

    def enrich(sample: Sample) -> Sample:
        for stream, step in steps:
            sample = step(sample, rngs_of(sample.seeds, stream))
        return sample

    return enrich


def _in_order(s: AugmentationSettings, *, flat: bool) -> tuple[tuple[float, Augmentation], ...]:
    """Each with an amount that is 0 where it is switched off."""
    elastic = Elastic(s.elastic_share, s.elastic_points, s.elastic_std, still_edge=s.elastic == "field")
    return (
        (s.orientations, Orient(stack=not flat)),
        (0 if s.elastic == "none" else s.elastic_share * s.elastic_std, elastic),
        (s.misalignment * s.misalignment_max, Misalign(s.misalignment, s.misalignment_max)),
        (s.blur_share * s.blur, Blur(s.blur_share, s.blur)),
        (s.defocus, Defocus(s.defocus)),
        (s.gamma, Gamma(s.gamma)),
        (s.contrast, Contrast(s.contrast)),
        (s.brightness, Brighten(s.brightness)),
        (s.shading, Shade(s.shading)),
        (s.fold, Fold(s.fold)),
        (s.noise, Noise(s.noise)),
        (s.missing, Miss(s.missing)),
    )
