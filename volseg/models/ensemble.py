"""Checks of the models of one run: common classes, number of estimates."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from volseg.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volseg.models.card import ModelHeader


def resolve_classes(models: Sequence[ModelHeader], requested: str) -> tuple[str, ...]:
    """Resolve `--classes`: `auto` is membrane if all models have it, else all classes.

    Raises:
        ConfigError: a model has no such class, a class is named twice, or models with different classes get `all`.
    """
    available = [model.card.classes for model in models]
    if requested == "auto":
        requested = "membrane" if all("membrane" in classes for classes in available) else "all"
    if requested == "all" and len(set(available)) > 1:
        lists = "; ".join(f"{model.card.name}: {', '.join(model.card.classes)}" for model in models)
        raise ConfigError(f"the models have different classes ({lists}); name those to average with --classes")
    classes = available[0] if requested == "all" else tuple(part.strip() for part in requested.split(","))
    if len(set(classes)) < len(classes):
        raise ConfigError(f"--classes {requested} names a class twice; name each once")
    for model in models:
        model.card.channels_of(classes)
    return classes


def check_ensemble(models: Sequence[ModelHeader], orientations: str, *, uncertainty: bool) -> None:
    """Refuse the standard deviation of a single estimate, and duplicate models.

    Raises:
        ConfigError: uncertainty of a single estimate, or a model that is given more than once.
    """
    if uncertainty and len(models) == 1 and orientations == "one":
        raise ConfigError(
            "--uncertainty needs several estimates of a voxel; give --orientations flips or all, or several --model"
        )
    digest, count = Counter(model.digest for model in models).most_common(1)[0]
    if count > 1:
        name = next(model.path for model in models if model.digest == digest)
        raise ConfigError(f"--model {name} is given more than once; an ensemble averages different models")
