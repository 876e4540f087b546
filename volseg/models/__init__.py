"""The networks, their registry, reach and stride, and the model file.

What is exported here needs no torch; `volseg.models.model` and `volseg.models.footprint` do.
"""

from volseg.models.card import ModelCard, ModelHeader, read_card
from volseg.models.ensemble import check_ensemble, resolve_classes
from volseg.models.packaged import model_card_text, packaged_models, resolve_model
from volseg.models.registry import NETWORKS

__all__ = [
    "NETWORKS",
    "ModelCard",
    "ModelHeader",
    "check_ensemble",
    "model_card_text",
    "packaged_models",
    "read_card",
    "resolve_classes",
    "resolve_model",
]
