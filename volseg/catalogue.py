"""What networks and models there are, and what is known of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from volseg.models import NETWORKS, ModelHeader, packaged_models, read_card, resolve_model

if TYPE_CHECKING:
    from volseg.blocks import Footprint


def catalogue() -> dict[str, list[dict[str, Any]]]:
    """Every network, as published, and every packaged model."""
    return {
        "networks": [_network(name) for name in sorted(NETWORKS)],
        "packaged": [_packaged(read_card(path)) for path in packaged_models().values()],
    }


def one_model(name: str) -> dict[str, Any]:
    """All that is known of a network, a packaged model or a model file.

    Raises:
        ModelError: there is none of this name.
    """
    if name in NETWORKS:
        return _network(name)
    header = read_card(resolve_model(name))
    return {**_packaged(header), **header.card.model_dump(mode="json", exclude={"footprint", "name"})}


def _packaged(header: ModelHeader) -> dict[str, Any]:
    card = header.card
    return {"name": card.name, **_sizes(card.footprint), "parameters": card.parameters, "digest": header.digest}


def _network(name: str) -> dict[str, Any]:
    from volseg.models.describe import describe_network  # noqa: PLC0415 - it loads torch, which a card does not need

    footprint, parameters, summary = describe_network(name)
    return {"name": name, **_sizes(footprint), "parameters": parameters, "summary": summary}


def _sizes(footprint: Footprint) -> dict[str, Any]:
    reach = [max(a, b) for a, b in zip(footprint.reach_before, footprint.reach_after, strict=True)]
    return {
        "reach": reach,
        "stride": list(footprint.stride),
        "margin": list(footprint.margin),
        "exact_halo": list(footprint.exact_halo()),
    }
