"""Small models to export in tests."""

from __future__ import annotations

from functools import cache
from typing import Any

from volseg.models.model import Model, build_card
from volseg.ops import Normalization
from volseg.testing.factories import random_network

NETWORKS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "fusionnet": ("fusionnet", {"width": 3, "depth": 2}, "section"),
    "unet": ("unet", {"width": 3, "depth": 2}, "fixed"),
    "unet-padded": ("unet", {"width": 3, "depth": 1, "padded": True, "batch_norm": True}, "volume"),
}
LICENSE = "CC-BY-4.0"


@cache
def make_named_model(name: str) -> Model:
    kind, arguments, mode = NETWORKS[name]
    network = random_network(kind, arguments)
    card = build_card(
        network,
        name=name,
        kind=kind,
        arguments=arguments,
        normalization=Normalization(mode, (110.0, 40.0)),
        voxel_nm=(50.0, 4.2, 4.2),
        license=LICENSE,
    )
    return Model(network, card, "digest")
