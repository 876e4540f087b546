"""The networks, their registry, reach and stride, and the model file.

What is exported here needs no torch; `volseg.models.model` and `volseg.models.footprint` do.
"""

from volseg.models.card import ModelCard, ModelHeader, read_card
from volseg.models.ensemble import chosen_classes, refuse_lone_estimate
from volseg.models.packaged import model_card_text, packaged_models, resolve_model
from volseg.models.registry import NETWORKS

__all__ = [
    "NETWORKS",
    "ModelCard",
    "ModelHeader",
    "chosen_classes",
    "model_card_text",
    "packaged_models",
    "read_card",
    "refuse_lone_estimate",
    "resolve_model",
]
