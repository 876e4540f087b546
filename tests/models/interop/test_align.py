"""Layers are paired with the layers that they belong to."""

from __future__ import annotations

from torch import nn

from volseg.models.interop.align import normed_convolutions


def test_a_norm_belongs_to_the_convolution_before_it_and_to_no_other_layer() -> None:
    layers = [nn.BatchNorm2d(1), nn.Conv2d(1, 2, 1), nn.ReLU(), nn.BatchNorm2d(2), nn.BatchNorm2d(2), nn.PReLU()]
    layers += [nn.BatchNorm2d(2), nn.ConvTranspose2d(2, 1, 2), nn.BatchNorm2d(1), nn.Conv2d(1, 1, 1)]
    assert normed_convolutions(nn.Sequential(*layers)) == {"1": "3", "7": "8"}
