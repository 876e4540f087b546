"""Weights of public networks compute the same in volseg, or are refused by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.models.interop.public_networks import BrainUNet, ListedFusionNet, MilesialUNet, trained
from volseg.errors import ConfigError, ModelError
from volseg.models.interop.translate import translate
from volseg.models.registry import build_network
from volseg.testing.factories import random_network

if TYPE_CHECKING:
    from pathlib import Path

MASK_VALUES = {"mask_values": [0, [255, 255, 255]]}


def assert_same_output(network: nn.Module, other: nn.Module, channels: int = 1, **sizes: int) -> None:
    image = torch.randn(2, channels, 64, 96)
    grey = image if channels == sizes.get("grey", channels) else image[:, :1].expand(-1, channels, -1, -1)
    with torch.no_grad():
        expected = network(grey)
        actual = other.eval()(grey[:, : sizes.get("grey", channels)])
    assert expected.std() > 0.01
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("old", [False, True])
def test_milesials_unet_computes_the_same_without_arguments(tmp_path: Path, old: bool) -> None:
    public = trained(MilesialUNet(width=3, depth=4, old=old))
    torch.save({**public.state_dict(), **MASK_VALUES}, tmp_path / "w.pth")
    network, arguments, notes = translate(tmp_path / "w.pth", "unet", {}, None)
    assert_same_output(public, network)
    sizes = {"in_channels": 1, "out_channels": 2, "width": 3, "depth": 4, "padded": True, "batch_norm": True}
    assert arguments == sizes
    assert notes[0] == "left out, no weights: mask_values"
    assert notes[1].startswith("a U-Net of milesial/Pytorch-UNet: in_channels = 1, out_channels = 2, width = 3")
    assert ("18 convolutions before a norm have no bias, which is the same as 0" in notes) is not old


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.model."])
@pytest.mark.parametrize("key", ["model_state", "network_weights", "state_dict"])
def test_milesials_unet_is_known_in_wrappers(tmp_path: Path, prefix: str, key: str) -> None:
    public = trained(MilesialUNet(width=2, depth=2))
    state = {prefix + name: tensor for name, tensor in public.state_dict().items()}
    torch.save({key: state, "optimizer": {"state": {}}}, tmp_path / "w.pth")
    assert_same_output(public, translate(tmp_path / "w.pth", "unet", {}, None)[0])


def test_three_colours_become_one_grey_on_request(tmp_path: Path) -> None:
    public = trained(MilesialUNet(channels=3, width=2, depth=2), 3)
    torch.save(public.state_dict(), tmp_path / "w.pth")
    network, _, notes = translate(tmp_path / "w.pth", "unet", {"in_channels": 1}, None)
    assert_same_output(public, network, 3, grey=1)
    assert "summed into one" in notes[0]
    network, _, notes = translate(tmp_path / "w.pth", "unet", {}, None)
    assert_same_output(public, network, 3)
    assert any("3 input channels are neighbouring sections; for the three colours" in note for note in notes)


def test_upsampled_features_in_front_are_permuted(tmp_path: Path) -> None:
    public = trained(BrainUNet(width=2, depth=3))
    state = public.state_dict()
    torch.save(state, tmp_path / "known.pt")
    torch.save({name.replace("coder", "path"): tensor for name, tensor in state.items()}, tmp_path / "other.pt")
    sizes = {"width": 2, "depth": 3, "out_channels": 1, "padded": True, "batch_norm": True}
    for file, arguments, upsampled_first in (("known.pt", {}, None), ("other.pt", sizes, True)):
        network, _, notes = translate(tmp_path / file, "unet", arguments, upsampled_first)
        assert_same_output(public, network)
        assert "upsampled features come before the skip; the kernels that read them are permuted" in notes


def test_bilinear_upsampling_is_refused_by_layer(tmp_path: Path) -> None:
    torch.save(MilesialUNet(width=4, depth=4, bilinear=True).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"without up1.up.weight: it upsamples bilinearly .*bilinear=False"):
        translate(tmp_path / "w.pth", "unet", {}, None)


def test_arguments_that_contradict_the_layout_are_refused(tmp_path: Path) -> None:
    torch.save(MilesialUNet(width=2, depth=2).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"of milesial/Pytorch-UNet with padded = True, not False; leave out"):
        translate(tmp_path / "w.pth", "unet", {"padded": False}, None)


@pytest.mark.parametrize("file", ["w.pt", "w.safetensors"])
def test_layers_listed_in_another_order_find_their_place(tmp_path: Path, file: str) -> None:
    public = trained(ListedFusionNet())
    state = public.state_dict()
    save_file(state, tmp_path / file) if file.endswith("s") else torch.save(state, tmp_path / file)
    network, _, notes = translate(tmp_path / file, "fusionnet", {"width": 2, "depth": 3}, None)
    assert_same_output(public, network)
    assert notes[0].endswith("tensors matched layer by layer, by shapes and neighbours")
    assert notes[1].startswith("35 convolutions before a norm have no bias")


@pytest.mark.parametrize("file", ["w.pt", "w.safetensors"])
def test_sorted_names_of_a_known_layout_do_not_matter(tmp_path: Path, file: str) -> None:
    public = trained(MilesialUNet(width=2, depth=3))
    state = {f"unet_{name}": tensor for name, tensor in sorted(public.state_dict().items())}
    save_file(state, tmp_path / file) if file.endswith("s") else torch.save(state, tmp_path / file)
    arguments = {"width": 2, "depth": 3, "padded": True, "batch_norm": True}
    network, _, notes = translate(tmp_path / file, "unet", arguments, None)
    assert_same_output(public, network)
    assert "matched layer by layer" in notes[0]


def test_buffers_at_the_end_as_in_an_export_find_their_layers(tmp_path: Path) -> None:
    public = trained(MilesialUNet(width=2, depth=2))
    state = {f"x.{name}": tensor for name, tensor in public.state_dict().items()}
    torch.save(dict(sorted(state.items(), key=lambda item: "running" in item[0])), tmp_path / "w.pt")
    arguments = {"width": 2, "depth": 2, "padded": True, "batch_norm": True}
    assert_same_output(public, translate(tmp_path / "w.pt", "unet", arguments, None)[0])


def test_layers_that_fit_in_two_ways_are_named(tmp_path: Path) -> None:
    arguments = {"width": 2, "depth": 1}
    state = random_network("unet", arguments).state_dict()
    blocks: dict[str, Any] = {"apple": "down.0.2", "berry": "up.0.2", "cherry": "up.0.0", "date": "bottom.0.2"}
    blocks |= {"elder": "head", "fig": "upconvolutions.0", "grape": "bottom.0.0", "honey": "down.0.0"}
    listed = {f"{new}.{role}": state[f"{old}.{role}"] for new, old in blocks.items() for role in ("weight", "bias")}
    torch.save(listed, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"apple, berry have the same shape, and each could be down.0.2 or up.0.2; "):
        translate(tmp_path / "w.pt", "unet", arguments, None)


@pytest.mark.parametrize(
    ("saved", "asked", "options"),
    [
        ({"depth": 2}, ("fusionnet", {"width": 4}), "--network unet .*width=2 --argument depth=2"),
        ({"depth": 2, "batch_norm": True}, ("unet", {"width": 4}), "--network unet .*--argument batch_norm=true"),
        ({"depth": 1, "out_channels": 1}, ("unet", {"width": 2}), "--network unet .*out_channels=1 .*depth=1"),
    ],
)  # fmt: skip
def test_what_does_not_fit_says_what_would(
    tmp_path: Path, saved: dict[str, Any], asked: tuple[str, dict[str, Any]], options: str
) -> None:
    torch.save(build_network("unet", {"width": 2, **saved}).state_dict(), tmp_path / "w.pt")
    with pytest.raises(ModelError, match=rf"does not fit: it has \S+ \(.*where the network has .*; it fits {options}"):
        translate(tmp_path / "w.pt", *asked, upsampled_first=None)
