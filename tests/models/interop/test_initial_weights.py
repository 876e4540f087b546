"""A training starts from a classifier, whose own scores prove it, or from a coarser FCN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from tests.models.interop.classifiers import VGG16, random_classifier
from volseg.errors import ConfigError, ModelError, VolsegError
from volseg.models.interop.initial_weights import load_initial_weights
from volseg.models.registry import build_network
from volseg.testing.factories import make_model

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


def features_of(network: Any, grey: Tensor) -> Tensor:
    """What fc7 of an FCN or a DeconvNet makes of a window of 224 x 224 without padding: (1, C)."""
    x = grey
    if hasattr(network, "stages"):
        network.stages[0][0].padding = (1, 1)  # the classifier's, instead of the paper's 100
        network.classifier[0].padding = (0, 0)
        for stage in network.stages:
            x = stage(x)
        x = network.classifier(x)
    else:
        for stage in network.down:
            x, _ = network.pool(stage(x))
        x = network.classifier[:6](x)
    assert x.shape[2:] == (1, 1)
    return x.flatten(1)


@pytest.mark.parametrize("batch_norm", [False, True], ids=["vgg16", "vgg16_bn"])
@pytest.mark.parametrize(
    ("kind", "more"),
    [("fcn8s", {}), ("fcn32s", {"padded": True}), ("fcn16s", {"in_channels": 3}), ("deconvnet", {})],
)
def test_the_network_sees_what_the_classifier_sees(
    tmp_path: Path, kind: str, more: dict[str, Any], batch_norm: bool
) -> None:
    classifier = random_classifier(batch_norm=batch_norm)
    torch.save({f"module.{name}": tensor for name, tensor in classifier.state_dict().items()}, tmp_path / "vgg.pth")
    arguments = {"width": 4, **more}
    network = build_network(kind, arguments)
    weights = load_initial_weights(network, str(tmp_path / "vgg.pth"), kind, arguments)
    grey = torch.randn(1, 1, 224, 224)
    sections = torch.randn(1, arguments.get("in_channels", 1), 224, 224)
    sections[:, sections.shape[1] // 2] = grey[0, 0]
    with torch.no_grad():
        scores = classifier.classifier[6](features_of(network.eval(), sections))
        expected = classifier(grey.expand(-1, 3, -1, -1))
    assert expected.std() > 0.1
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-4)
    assert len([source for source in weights.taken.values() if "running" not in source]) >= 15
    assert weights.left_out == ("classifier.6",)


def test_the_report_names_each_layer(tmp_path: Path) -> None:
    torch.save(random_classifier().state_dict(), tmp_path / "vgg.pt")
    network: Any = build_network("fcn8s", {"width": 4})
    weights = load_initial_weights(network, str(tmp_path / "vgg.pt"), "fcn8s", {"width": 4})
    assert list(weights.taken.items())[:2] == [("stages.0.0", "features.0"), ("stages.0.2", "features.2")]
    assert list(weights.taken.items())[-2:] == [("classifier.0", "classifier.0"), ("classifier.3", "classifier.3")]
    assert weights.fresh == ("head", "scores.0", "scores.1")
    taken, rest = weights.lines()
    assert "vgg.pt: 15 layers taken: features.0 as stages.0.0, " in taken
    assert rest.endswith("not taken: classifier.6; not in the file: head, scores.0, scores.1")
    for layer in (network.head, *network.scores):
        assert not layer.weight.any()
        assert not layer.bias.any()


@pytest.mark.parametrize(("coarse", "fine"), [("fcn32s", "fcn16s"), ("fcn16s", "fcn8s"), ("fcn32s", "fcn8s")])
def test_a_finer_fcn_begins_with_the_scores_of_a_coarser_one(tmp_path: Path, coarse: str, fine: str) -> None:
    arguments = {"width": 2, "padded": True}
    start = make_model(tmp_path / "coarse.safetensors", coarse, arguments)
    network: Any = build_network(fine, arguments)
    before = network.upsample.weight.clone()
    weights = load_initial_weights(network, str(start), fine, arguments)
    old: Any = build_network(coarse, arguments)
    load_initial_weights(old, str(start), coarse, arguments)
    new = [f"scores.{number}" for number in range(len(old.scores), len(network.scores))]
    assert weights.fresh == tuple(new)
    assert all(not network.get_submodule(name).weight.any() for name in new)
    assert torch.equal(network.upsample.weight, before)
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        scores = old.eval().head(old.classifier(nn.Sequential(*old.stages)(image)))
        for number, double in enumerate(network.doublings):
            scores = double(scores)
            if number < len(old.scores):
                scores = scores + old.scores[number](nn.Sequential(*old.stages[: 4 - number])(image))
        torch.testing.assert_close(network.eval()(image), network.upsample(scores))


def _with(changes: dict[str, Any], **sizes: int) -> dict[str, Any]:
    state = VGG16(**{"width": 2, **sizes}).state_dict()
    return {name: tensor for name, tensor in {**state, **changes}.items() if tensor is not None}


@pytest.mark.parametrize(
    ("state", "kind", "message"),
    [
        (_with({}), "unet", "is a VGG16 classifier, which starts fcn32s, fcn16s, fcn8s and deconvnet, not unet"),
        (_with({}, width=4), "fcn8s", r"it has features.0.weight \(4, 3, 3, 3\) where the network has \(2, 1, 3, 3\); "
                                      "its width is 4, and its fully connected layers must have 256"),
        (_with({"classifier.0.weight": torch.zeros(128, 16 * 4)}), "fcn8s",
         r"it has classifier.0.weight \(128, 64\) where the network has \(128, 16, 7, 7\)"),
        (_with({"features.28.weight": None, "features.28.bias": None}), "fcn8s", "has 12 convolutions before .*D"),
        (_with({"features.5.bias": None}), "deconvnet", "does not fit: it has no features.5.bias; use"),
        (_with({"features.5.bias": torch.full((4,), torch.nan)}), "fcn8s", "features.5 must hold finite floats"),
        ({"layer.weight": torch.zeros(3)}, "fcn8s", "neither a model file nor a VGG16 classifier"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_layer(tmp_path: Path, state: Any, kind: str, message: str) -> None:
    torch.save(state, tmp_path / "w.pt")
    network = build_network(kind, {"width": 2})
    with pytest.raises((ConfigError, ModelError), match=message):
        load_initial_weights(network, str(tmp_path / "w.pt"), kind, {"width": 2})


def test_other_models_are_refused(tmp_path: Path) -> None:
    fine = make_model(tmp_path / "fine.safetensors", "fcn8s", {"width": 2})
    for kind, arguments in (("fcn16s", {"width": 2}), ("fcn8s", {"width": 2, "padded": True})):
        with pytest.raises(
            VolsegError, match=r"network.start .* is fcn8s \{'width': 2\}, not fcn.*; use the same name"
        ):
            load_initial_weights(build_network(kind, arguments), str(fine), kind, arguments)
