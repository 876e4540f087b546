"""All augmentations of a run file, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from volseg.training.augmentation.blur import Defocus, GaussianBlur
from volseg.training.augmentation.elastic import ElasticTransform
from volseg.training.augmentation.fold import Fold
from volseg.training.augmentation.intensity import (
    GaussianNoise,
    MissingSection,
    RandomBrightness,
    RandomContrast,
    RandomGamma,
    SectionShading,
)
from volseg.training.augmentation.misalignment import Misalignment
from volseg.training.augmentation.orientations import RandomOrientation
from volseg.training.augmentation.rng import make_rngs

if TYPE_CHECKING:
    from collections.abc import Callable

    from volseg.config.train_tables import AugmentationSettings
    from volseg.training.augmentation.rng import Augmentation
    from volseg.training.data.sample import Sample


def make_augmentation(settings: AugmentationSettings, *, flip_z: bool) -> Callable[[Sample], Sample]:
    """Compose the augmentation of samples, on the device that holds them.

    The order follows the origin of an image: geometry, sharpness, grey values, defects, noise; missing sections last,
    because they have no noise. A patch depends on its own seed only: alone or in any batch the result is the same, to
    float32 rounding on one device. Noise differs between kinds of device.

    Args:
        settings: the `[augmentation]` table.
        flip_z: flip patches along z; False for 2-D networks, with or without neighbouring sections as channels.

    Returns:
        A function from a sample to one of the same shapes and types, whose labels are those of the first or IGNORED.
        It returns the sample itself if all augmentations are off.
    """
    active = [
        (stream, augmentation)
        for stream, (amount, augmentation) in enumerate(_augmentations(settings, flip_z=flip_z))
        if amount
    ]

    def augment(sample: Sample) -> Sample:
        for stream, augmentation in active:
            sample = augmentation(sample, make_rngs(sample.seeds, stream))
        return sample

    return augment


def _augmentations(s: AugmentationSettings, *, flip_z: bool) -> tuple[tuple[float, Augmentation], ...]:
    """List all augmentations, each with an amount that is 0 if it is off."""
    elastic = ElasticTransform(
        s.elastic_probability, s.elastic_points, s.elastic_std, fixed_border=s.elastic == "field"
    )
    return (
        (s.orientations, RandomOrientation(flip_z=flip_z)),
        (0 if s.elastic == "none" else s.elastic_probability * s.elastic_std, elastic),
        (s.misalignment * s.misalignment_max, Misalignment(s.misalignment, s.misalignment_max)),
        (s.blur_probability * s.blur, GaussianBlur(s.blur_probability, s.blur)),
        (s.defocus, Defocus(s.defocus)),
        (s.gamma, RandomGamma(s.gamma)),
        (s.contrast, RandomContrast(s.contrast)),
        (s.brightness, RandomBrightness(s.brightness)),
        (s.shading, SectionShading(s.shading)),
        (s.fold, Fold(s.fold)),
        (s.noise, GaussianNoise(s.noise)),
        (s.missing, MissingSection(s.missing)),
    )
