"""Lists networks and packaged models, with their properties."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from volseg.models.card import ModelHeader, read_card
from volseg.models.packaged import model_card_text, packaged_models, resolve_model
from volseg.models.registry import NETWORKS

if TYPE_CHECKING:
    from volseg.blocks import Footprint
    from volseg.models.describe import NetworkDescription


def list_models() -> dict[str, list[dict[str, Any]]]:
    """Details of every network with its default arguments, and of every packaged model."""
    return {
        "networks": [network_details(name) for name in sorted(NETWORKS)],
        "packaged": [_packaged_details(read_card(path)) for path in packaged_models().values()],
    }


def model_details(name: str) -> dict[str, Any]:
    """Details of a network, a packaged model or a model file.

    Raises:
        ConfigError: the name is none of these.
        ModelError: the model file cannot be read.
    """
    if name in NETWORKS:
        return network_details(name)
    header = read_card(resolve_model(name, others=tuple(NETWORKS)))
    details = _packaged_details(header)
    card = header.card.model_dump(mode="json", exclude={"footprint", "name"})
    first = {key: card.pop(key) for key in ("network", "arguments")}
    # The training record may be long, so it comes near the end.
    last = {"training": card.pop("training"), "license": card.pop("license"), "digest": details.pop("digest")}
    if text := model_card_text(name):
        last["story"] = text
    return {"name": details.pop("name"), **first, **details, **card, **last}


def network_details(name: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
    """Sizes and cost of a network, without allocating its weights.

    Args:
        name: name in the registry.
        arguments: of the network's class; the published ones by default.

    Raises:
        ConfigError: an unknown network or argument.
    """
    description = _describe(name, arguments)
    return {
        "name": name,
        **_size_fields(description.footprint),
        "parameters": description.parameters,
        **_cost_fields(description),
        "summary": description.summary,
    }


def _packaged_details(header: ModelHeader) -> dict[str, Any]:
    card = header.card
    return {
        "name": card.name,
        **_size_fields(card.footprint),
        "parameters": card.parameters,
        **_cost_fields(_describe(card.network, card.arguments)),
        "digest": header.digest,
    }


def _describe(name: str, arguments: dict[str, Any] | None) -> NetworkDescription:
    from volseg.models.describe import describe_network  # noqa: PLC0415 - it loads torch, which --help does not need

    return describe_network(name, arguments)


def _size_fields(footprint: Footprint) -> dict[str, Any]:
    reach = [max(a, b) for a, b in zip(footprint.reach_before, footprint.reach_after, strict=True)]
    return {
        "reach": reach,
        "stride": list(footprint.stride),
        "margin": list(footprint.margin),
        "exact_halo": list(footprint.exact_halo()),
    }


def _cost_fields(description: NetworkDescription) -> dict[str, Any]:
    return {"layers": description.layers, "flops_per_voxel": description.flops_per_voxel}
