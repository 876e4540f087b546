"""Several models that make one map: the classes that they share, and estimates that differ."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from volseg.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volseg.models.card import ModelHeader


def chosen_classes(models: Sequence[ModelHeader], asked: str) -> tuple[str, ...]:
    """What is written: `auto` is membrane where all models know it, else all classes.

    Raises:
        ConfigError: a model has no such class, a class is named twice, or models with different classes get `all`.
    """
    known = [model.card.classes for model in models]
    if asked == "auto":
        asked = "membrane" if all("membrane" in each for each in known) else "all"
    if asked == "all" and len(set(known)) > 1:
        each = "; ".join(f"{model.card.name}: {', '.join(model.card.classes)}" for model in models)
        raise ConfigError(f"the models have different classes ({each}); name those to average with --classes")
    classes = known[0] if asked == "all" else tuple(part.strip() for part in asked.split(","))
    if len(set(classes)) < len(classes):
        raise ConfigError(f"--classes {asked} names a class twice; name each once")
    for model in models:
        model.card.channels_of(classes)
    return classes


def refuse_lone_estimate(models: Sequence[ModelHeader], orientations: str, *, uncertainty: bool) -> None:
    """Refuse the spread of a single estimate, and one network given twice.

    Raises:
        ConfigError: there is one estimate only, or a model is given more than once.
    """
    if uncertainty and len(models) == 1 and orientations == "one":
        raise ConfigError(
            "--uncertainty needs several estimates of a voxel; give --orientations flips or all, or several --model"
        )
    twice = [name for name, times in Counter(model.digest for model in models).items() if times > 1]
    if twice:
        name = next(model.path for model in models if model.digest == twice[0])
        raise ConfigError(f"--model {name} is given more than once; an ensemble averages different models")
