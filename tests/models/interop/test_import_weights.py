"""State dicts are matched to a network in any wrapper; other files are refused."""

from __future__ import annotations

import copy
import re
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from volseg.errors import ConfigError, ModelError
from volseg.models.interop.match import match_tensors
from volseg.models.interop.state_dict import read_state_dict
from volseg.models.registry import build_network
from volseg.testing.factories import random_network

NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("fusionnet", {"width": 2, "depth": 1}),
    ("unet", {"width": 2, "depth": 2}),
    ("unet", {"width": 2, "depth": 1, "padded": True, "batch_norm": True}),
]
COUNTER = "num_batches_tracked"


@pytest.fixture(params=NETWORKS, ids=["fusionnet", "unet", "unet-padded"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@cache
def cached_network(kind: str, **arguments: Any) -> nn.Module:
    """A network with random weights; tests must not modify it."""
    return random_network(kind, arguments)


def load_into(path: Path, kind: tuple[str, dict[str, Any]]) -> tuple[nn.Module, int]:
    """A network with the weights of a file, and the number of renamed tensors."""
    network = build_network(*kind)
    matched = match_tensors(read_state_dict(path), network)
    network.load_state_dict(matched.tensors)
    return network.eval(), matched.renamed


def assert_same(network: nn.Module, other: nn.Module) -> None:
    for name, tensor in network.state_dict().items():
        if not name.endswith(COUNTER):
            torch.testing.assert_close(other.state_dict()[name], tensor, rtol=0, atol=0)


def rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under other names."""
    return {f"block{number}.{name.rpartition('.')[2]}": tensor for number, (name, tensor) in enumerate(state.items())}


@pytest.mark.parametrize(
    ("keys", "prefix"),
    [
        ((), ""),
        ((), "_orig_mod.module."),
        (("state_dict",), "model."),
        (("model_state_dict",), "network."),
        (("model_state",), "net."),
        (("network_weights",), "_orig_mod."),
        (("net",), "module."),
        (("model", "state_dict"), ""),
    ],
)
def test_wrappers_are_removed(tmp_path: Path, kind: Any, keys: tuple[str, ...], prefix: str) -> None:
    network = cached_network(kind[0], **kind[1])
    content: Any = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    for key in keys:
        content = {key: content, "epoch": 7}
    torch.save(content, tmp_path / "w.pt")
    other, count = load_into(tmp_path / "w.pt", kind)
    assert_same(network, other)
    assert count == 0


@pytest.mark.parametrize("counters", [True, False])
def test_other_names_match_by_order_and_shape(tmp_path: Path, kind: Any, counters: bool) -> None:
    network = cached_network(kind[0], **kind[1])
    state = {name: t for name, t in network.state_dict().items() if counters or not name.endswith(COUNTER)}
    torch.save(rename(state), tmp_path / "w.pth")
    other, count = load_into(tmp_path / "w.pth", kind)
    assert_same(network, other)
    assert count == sum(not name.endswith(COUNTER) for name in state)


def test_equal_names_match_in_any_order(tmp_path: Path, kind: Any) -> None:
    network = cached_network(kind[0], **kind[1])
    torch.save(dict(reversed(network.state_dict().items())), tmp_path / "w.pt")
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    for name in ("w.pt", "w.safetensors"):
        other, count = load_into(tmp_path / name, kind)
        assert_same(network, other)
        assert count == 0


def test_half_precision_becomes_float32(tmp_path: Path, kind: Any) -> None:
    network = cached_network(kind[0], **kind[1])
    torch.save({name: tensor.half() for name, tensor in network.state_dict().items()}, tmp_path / "w.pt")
    other, _ = load_into(tmp_path / "w.pt", kind)
    assert_same(copy.deepcopy(network).half().float(), other)
    assert all(parameter.dtype == torch.float32 for parameter in other.parameters())


class TouchOnUnpickling:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_pickles_with_code_are_refused_and_not_run(tmp_path: Path) -> None:
    torch.save(
        {"state_dict": {"w": torch.zeros(1)}, "extra": TouchOnUnpickling(tmp_path / "touched")}, tmp_path / "w.pt"
    )
    with pytest.raises(ModelError, match=r"more than tensors \(\S+\), which could run code and is never loaded"):
        read_state_dict(tmp_path / "w.pt")
    assert not (tmp_path / "touched").exists()


def test_pickled_modules_are_refused(tmp_path: Path) -> None:
    torch.save(build_network(*NETWORKS[0]), tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"FusionNet\), which could run code .* torch.save\(network.state_dict\(\)"):
        read_state_dict(tmp_path / "w.pt")


def _save_script(network: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(network, torch.zeros(1, 1, 16, 16)).save(str(path))


def _save_export(network: nn.Module, path: Path) -> None:
    torch.export.save(torch.export.export(network, (torch.zeros(1, 1, 16, 16),)), path)


@pytest.mark.parametrize(
    ("name", "save", "kind"),
    [("w.pt", _save_script, "a TorchScript archive"), ("w.pt2", _save_export, "an archive of torch.export")],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_archives_with_code_are_refused_and_the_advice_works(tmp_path: Path, name: str, save: Any, kind: str) -> None:
    arguments = {"width": 2, "depth": 1, "padded": True, "batch_norm": True}
    network = cached_network("unet", **arguments)
    save(network, tmp_path / name)
    with pytest.raises(
        ModelError, match=f"{kind}, which contains code and is never loaded; if you trust it"
    ) as refused:
        read_state_dict(tmp_path / name)
    code = re.search("run `(.*)` in Python", str(refused.value))
    assert code
    exec(code[1])
    other, _ = load_into(tmp_path / "w-weights.pt", ("unet", arguments))
    assert_same(network, other)


def _holding_itself() -> dict[str, Any]:
    content: dict[str, Any] = {}
    content["model"] = content
    return content


def _write_text(path: Path) -> None:
    path.write_text("no weights, just some text")


def _write_truncated(path: Path) -> None:
    torch.save({"w": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("w.pt", lambda path: None, "there is no file"),
        ("w.pt", Path.mkdir, "there is no file"),
        ("w.pt", Path.touch, "cannot be read as a file of torch.save"),
        ("w.pt", _write_text, "(cannot be read as a file of torch.save|more than tensors)"),
        ("w.pt", _write_truncated, "cannot be read as a file of torch.save"),
        ("w.safetensors", _write_text, "is not a complete .safetensors"),
        ("w.pt", lambda path: torch.save([torch.zeros(1)], path), "holds a list, not a state dict"),
        ("w.pt", lambda path: torch.save({}, path), "holds nothing, not a state dict"),
        ("w.pt", lambda path: torch.save({"w": torch.zeros(1), "n": {"w": torch.zeros(1)}}, path), "'n' is a dict"),
        ("w.pt", lambda path: torch.save({"n": 3}, path), "its entry 'n' is a int"),
        ("w.pt", lambda path: torch.save(_holding_itself(), path), "its entry 'model' is a dict"),
        ("w.pt", lambda path: torch.save({"w": torch.zeros(1), "n": _holding_itself()}, path), "its entry 'n' is a d"),
        ("w.pt", lambda path: torch.save({1: torch.zeros(1)}, path), "its entry 1 is a Tensor"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, make: Any, message: str) -> None:
    make(tmp_path / name)
    with pytest.raises((ConfigError, ModelError), match=message) as refused:
        read_state_dict(tmp_path / name)
    assert "\n" not in str(refused.value)


def _swap_roles(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Swap running means and variances, which have the same shape."""
    other = rename(state)
    roles = {"running_mean": "running_var", "running_var": "running_mean"}
    return {f"{n.partition('.')[0]}.{roles.get(n.partition('.')[2], n.partition('.')[2])}": t for n, t in other.items()}


def _misplace_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    tensors = {name: tensor for name, tensor in state.items() if not name.endswith(COUNTER)}
    names = list(tensors)
    names[0], names[6] = "other", names[0]
    return dict(zip(names, tensors.values(), strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: {**s, "head.weight": torch.zeros(2, 9, 1, 1)},
            r"head.weight \(2, 9, 1, 1\) .*has head.weight \(1, 2",
        ),
        (
            lambda s: rename({**s, "head.weight": torch.zeros(9)}),
            r"weight \(9,\) where the network has head.wei",
        ),
        (lambda s: dict(list(s.items())[:-1]), r"nothing where the network has head.bias \(1,\)"),
        (lambda s: {**s, "more": torch.zeros(3)}, r"more \(3,\) where the network has nothing"),
        (_swap_roles, r"running_var \(2,\) where the network has .*running_mean \(2,\)"),
        (_misplace_names, r"where the network has"),
        (
            lambda s: {**s, "head.bias": torch.tensor([float("nan")])},
            "head.bias must hold finite floats; use",
        ),
    ],
)
def test_mismatches_are_named(tmp_path: Path, change: Any, message: str) -> None:
    state = cached_network(NETWORKS[0][0], **NETWORKS[0][1]).state_dict()
    torch.save(change(dict(state)), tmp_path / "w.pt")
    with pytest.raises(ModelError, match=message):
        load_into(tmp_path / "w.pt", NETWORKS[0])


@pytest.mark.parametrize(
    ("convert", "kind"),
    [
        (Tensor.long, "torch.int64, torch.strided, on cpu"),
        (lambda t: t.to(torch.float8_e4m3fn), "torch.float8_e4m3fn, torch.strided, on cpu"),
        (lambda t: t.to(torch.complex64), "torch.complex64, torch.strided, on cpu"),
        (Tensor.to_sparse, "torch.float32, torch.sparse_coo, on cpu"),
        (lambda t: t.to("meta"), "torch.float32, torch.strided, on meta"),
        (lambda t: torch.nested.nested_tensor([t, t]), "nested"),
    ],
    ids=["integers", "float8", "complex", "sparse", "meta", "nested"],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage:UserWarning")
def test_tensors_other_than_dense_floats_are_refused_by_name(tmp_path: Path, convert: Any, kind: str) -> None:
    state = cached_network(NETWORKS[0][0], **NETWORKS[0][1]).state_dict()
    torch.save({**state, "head.bias": convert(state["head.bias"])}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=f"head.bias must be a dense tensor of floats, not {kind}; save it as float32"):
        load_into(tmp_path / "w.pt", NETWORKS[0])


class TwoOrders(nn.Module):
    """Runs its layers in another order than it defines them."""

    def __init__(self) -> None:
        super().__init__()
        self.second, self.first = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(image))
        return out


def test_two_orders_that_fit_are_named_once(tmp_path: Path) -> None:
    torch.save(rename(TwoOrders().state_dict()), tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"block0.weight could be second.weight or first.weight, by its order; rename"):
        match_tensors(read_state_dict(tmp_path / "w.pt"), TwoOrders())


def test_safetensors_files_are_not_matched_by_order(tmp_path: Path, kind: Any) -> None:
    save_file(rename(cached_network(kind[0], **kind[1]).state_dict()), tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"holds 'block.*', the network 'down.*has no order"):
        load_into(tmp_path / "w.safetensors", kind)
