"""Augmentation of training patches."""

from volseg.training.augmentation.compose import make_augmentation

__all__ = ["make_augmentation"]
