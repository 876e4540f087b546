"""Counts and suggestions, and that each name a user may write wrong gets the nearest."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from volseg.cluster import check_cluster
from volseg.config import PredictConfig, TrainConfig, override, validate
from volseg.errors import ConfigError
from volseg.evaluation.evaluate import EvaluateOptions, evaluate
from volseg.models import read_card, resolve_model
from volseg.models.catalog import model_details
from volseg.models.registry import NETWORKS, build_network
from volseg.registry import LOSSES, NORMALIZATIONS
from volseg.storage import open_volume
from volseg.storage.create import create_volume
from volseg.storage.place import Place
from volseg.testing.factories import make_model, make_volume
from volseg.text import counted, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

RUN = {"data": {"raw": "a", "labels": "b", "train": [0, 3]}, "output": {"folder": "o"}}


def test_one_is_not_plural() -> None:
    assert [counted(n, "block") for n in (0, 1, 2)] == ["0 blocks", "1 block", "2 blocks"]


def test_case_does_not_matter_and_an_unlike_name_is_not_suggested() -> None:
    assert did_you_mean("FusionNet", NETWORKS) == " (did you mean 'fusionnet'?)"
    assert did_you_mean("resnet", NETWORKS) == ""


def train_config(assignment: str) -> TrainConfig:
    return validate(TrainConfig, override(RUN, assignment), "run.toml")


@pytest.mark.parametrize(
    ("action", "suggestion"),
    [
        (partial(NETWORKS.check, "fusionet"), "fusionnet"),
        (partial(LOSSES.check, "dise"), "dice"),
        (partial(NORMALIZATIONS.check, "sections"), "section"),
        (partial(check_cluster, "locl"), "local"),
        (partial(model_details, "unte"), "unet"),
        (partial(resolve_model, "fusionnet-snemi"), "fusionnet-snemi3d"),
        (partial(build_network, "unet", {"widht": 3}), "width"),
        (partial(build_network, "fusionnet_chain", {"lenght": 3}), "length"),
        (partial(train_config, "fit.stops=3"), "steps"),
        (partial(train_config, "validation.score=f2"), None),
        (partial(train_config, "validation.score=v_ran"), "v_rand"),
        (partial(train_config, "optimizer.name=adamm"), "adam"),
        (partial(validate, PredictConfig, {"source": "a", "target": "b", "model": "c", "blok": 1}, "predict"), "block"),
        (partial(evaluate, "map.zarr", "map.zarr", EvaluateOptions(kind="instance")), "instances"),
        (partial(open_volume, "channels.zarr", channel="membrame"), "membrane"),
        (lambda: read_card("m.safetensors").card.channels_of(("membrame",)), "membrane"),
        (partial(resolve_model, "n.safetensors"), "m.safetensors"),
    ],
)
def test_an_unknown_name_gets_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: Callable[[], Any], suggestion: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "m.safetensors")
    make_volume(tmp_path / "map.zarr", (2, 8, 8))
    size = (2, 8, 8)
    options: dict[str, Any] = {
        "dtype": "uint8",
        "place": Place.of_nm((30.0, 6.0, 6.0)),
        "channels": ("cell", "membrane"),
    }
    create_volume(Path("channels.zarr"), shape=size, shard=size, chunk=size, **options)
    with pytest.raises(ConfigError) as caught:
        action()
    assert (f"(did you mean {suggestion!r}?)" in str(caught.value)) == (suggestion is not None), caught.value
    assert str(caught.value).count("did you mean") == (suggestion is not None)
