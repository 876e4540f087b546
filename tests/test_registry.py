"""Plug-ins are found by name, imported once and only if used, and refused in one line."""

from __future__ import annotations

import sys
from functools import partial
from importlib import metadata
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from volseg.blocks import Box
from volseg.cluster.connect import CLUSTERS
from volseg.config.train_tables import LossSettings, NetworkSettings
from volseg.errors import ConfigError, ModelError, SourceError
from volseg.inference.optimize.optimize import optimize, specialized
from volseg.models import read_card
from volseg.models.footprint import network_footprint
from volseg.models.registry import NETWORKS, build_network
from volseg.models.window import RULES, Window, layer_type
from volseg.ops import Normalization
from volseg.ops.normalize import NormalizationMode
from volseg.registry import LOSSES, NORMALIZATIONS, Registry
from volseg.storage import open_readable, open_sections
from volseg.storage.readers import READERS
from volseg.testing.factories import make_model
from volseg.training.losses import make_loss

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Install = Callable[..., list[str]]

REGISTRIES: tuple[Registry[Any], ...] = (CLUSTERS, LOSSES, NETWORKS, NORMALIZATIONS, READERS, RULES)


class FakeEntryPoint(SimpleNamespace):
    """An entry point of a package that counts how often it is imported."""

    def load(self) -> Any:
        self.loads.append(self.name)
        if isinstance(self.object, Exception):
            raise self.object
        return self.object


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a fake package: `install("package", group, name=object, ...)`; returns the names that were imported."""
    plugins: list[FakeEntryPoint] = []
    loads: list[str] = []
    monkeypatch.setattr(metadata, "entry_points", lambda *, group: [p for p in plugins if p.group == group])

    def add(package: str, group: str, /, **objects: Any) -> list[str]:
        dist = SimpleNamespace(name=package)
        for name, thing in objects.items():
            plugins.append(FakeEntryPoint(name=name, group=group, dist=dist, object=thing, loads=loads, value=package))
        forget()
        return loads

    def forget() -> None:
        for registry in REGISTRIES:
            monkeypatch.setattr(registry, "_plugins", None)
            monkeypatch.setattr(registry, "_loaded", {})

    forget()
    return add


def message(action: Callable[[], Any], error: type[Exception] = ConfigError) -> str:
    """The error's line."""
    with pytest.raises(error) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.group)
def test_an_unknown_name_lists_the_choices(registry: Registry[Any], install: Install) -> None:
    install("their-package", registry.group, theirs=object())
    line = message(lambda: registry["nonsense"])
    assert "'nonsense'" in line
    assert all(name in line for name in (*registry.builtins, "theirs", registry.group))


def test_a_name_that_is_almost_right_is_suggested() -> None:
    assert "did you mean 'fusionnet'?" in message(lambda: NETWORKS["fusionet"])


def test_every_built_in_can_be_imported() -> None:
    for registry in REGISTRIES:
        for name in registry.builtins:
            assert registry[name] is not None


def test_a_plugin_is_imported_once_and_only_if_its_name_is_used(install: Install) -> None:
    loads = install("a", "volseg.losses", one=abs, other=abs)
    assert "one" in LOSSES
    assert list(LOSSES) == sorted([*LOSSES.builtins, "one", "other"])
    LOSSES.check("one")
    assert LOSSES["dice"].__name__ == "dice"
    assert loads == []
    assert LOSSES["one"] is LOSSES["one"] is abs
    assert loads == ["one"]


@pytest.mark.parametrize("action", [LOSSES.__getitem__, LOSSES.check], ids=["load", "check"])
def test_a_name_that_is_declared_twice_is_refused(install: Install, action: Callable[[str], Any]) -> None:
    install("one-package", "volseg.losses", dice=abs, theirs=abs)
    install("other-package", "volseg.losses", theirs=abs)
    assert "'dice' is declared by volseg and by one-package" in message(lambda: action("dice"))
    line = message(lambda: action("theirs"))
    assert "'theirs' is declared by one-package and by other-package" in line
    action("focal")


def test_a_plugin_that_cannot_be_imported_is_one_line(install: Install) -> None:
    install("their-package", "volseg.losses", theirs=ImportError("no module\nnamed numba"))
    line = message(lambda: LOSSES["theirs"])
    assert all(part in line for part in ("'theirs'", "their-package", "ImportError: no module named numba"))
    assert LOSSES["dice"].__name__ == "dice"


def test_entry_points_are_those_of_installed_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[volseg.test]\ntheirs = their_module:VALUE\nbroken = their_module:NOTHING\nmissing = no_such_module:X\n"
    )
    (tmp_path / "their_module.py").write_text("VALUE = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry: Registry[int] = Registry("volseg.test", "number", {"ours": "math:inf"})
    assert list(registry) == ["broken", "missing", "ours", "theirs"]
    assert "their_module" not in sys.modules
    assert registry["theirs"] == 7
    monkeypatch.delitem(sys.modules, "their_module")
    for name, cause in (("broken", "AttributeError"), ("missing", "ModuleNotFoundError")):
        line = message(partial(registry.__getitem__, name))
        assert all(part in line for part in (name, "their-package", cause))


def test_a_model_file_whose_plugin_is_missing_is_refused_by_name(tmp_path: Path, install: Install) -> None:
    install("their-package", "volseg.networks", theirs=NETWORKS["fusionnet"])
    install("their-package", "volseg.normalizations", robust=NormalizationMode(lambda values: (1.0, 2.0)))
    path = make_model(tmp_path / "model.safetensors", kind="theirs", mode="robust")
    assert read_card(path).card.network == "theirs"
    for registry, name in ((NETWORKS, "theirs"), (NORMALIZATIONS, "robust")):
        registry._plugins = {}
        line = message(lambda: read_card(path), ModelError)
        assert all(part in line for part in (str(path), repr(name), "install the package that provides it"))
        registry._plugins = None


def test_a_model_file_holds_names_and_no_module_paths(tmp_path: Path, install: Install) -> None:
    module = ModuleType("secret_module")
    module.Network = type("Network", (NETWORKS["fusionnet"],), {"__module__": "secret_module"})  # type: ignore[attr-defined]
    install("their-package", "volseg.networks", theirs=module.Network)
    path = make_model(tmp_path / "model.safetensors", kind="theirs")
    content = path.read_bytes()
    assert b'\\"theirs\\"' in content
    assert b"secret_module" not in content


class Halve(nn.Module):
    """A layer that volseg does not know."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(x, 2)


def test_a_layer_needs_a_rule_of_its_own(install: Install) -> None:
    def network() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), Halve(), nn.ConvTranspose2d(1, 1, 2, stride=2))

    assert "avg_pool2d" in message(lambda: network_footprint(network()), ModelError)
    install(
        "their-package", "volseg.receptive_field", **{layer_type(Halve): lambda layer, axis: Window(kernel=2, stride=2)}
    )
    footprint = network_footprint(network())
    assert footprint.stride == (1, 2, 2)
    assert footprint.reach_before == footprint.reach_after == (0, 2, 2)


def test_a_subclass_of_a_known_layer_is_not_taken_for_it(install: Install) -> None:
    class Shifted(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.roll(5, -1))

    with pytest.raises(ModelError, match="is not known"):
        network_footprint(nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), Shifted(1, 1, 1)))


class Standardized(nn.Conv2d):
    """A convolution that standardises its weights, so that no norm can be folded into them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = (self.weight - self.weight.mean()) / self.weight.std()
        return nn.functional.conv2d(x, weight, self.bias, padding=1)


class Gate(nn.Module):
    """A layer of two inputs."""

    def forward(self, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        return x * gate.sigmoid()


class Gated(nn.Module):
    """A network of layers that volseg does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.standardized = nn.Sequential(Standardized(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.gate = Gate()
        self.head = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.head(self.gate(self.standardized(x), x))


def test_inference_leaves_layers_of_plugins_as_they_are(install: Install) -> None:
    rules = {
        layer_type(Standardized): lambda layer, axis: Window(kernel=3, padding=1),
        layer_type(Gate): lambda layer, axis: Window(),
    }
    install("their-package", "volseg.receptive_field", **rules)
    torch.manual_seed(0)
    network = Gated()
    network(torch.randn(4, 1, 16, 16))  # statistics that a wrong fold would show
    network.eval()
    assert network_footprint(network).reach_before == (0, 3, 3)
    tiles = torch.randn(1, 1, 24, 24)
    fast = specialized(optimize(network, "cpu", "float32"), (24, 24), ((6, 17), (6, 17)), {})
    with torch.inference_mode():
        core = fast.network(tiles)[..., 6 - fast.start[0] : 18 - fast.start[0], 6 - fast.start[1] : 18 - fast.start[1]]
        torch.testing.assert_close(core, network(tiles)[..., 6:18, 6:18], rtol=1e-5, atol=1e-6)


def test_a_loss_of_a_plugin_is_used_and_checked(install: Install) -> None:
    install(
        "their-package",
        "volseg.losses",
        theirs=lambda output, targets, weights: (weights * (output - targets) ** 2).sum(),
        optional=lambda output, targets, weights, *, options: output.sum() * options.gamma,
        shaped=lambda output, targets, weights: output - targets,
    )
    ones = torch.ones(1, 1, 2, 2)
    assert make_loss(LossSettings(name="theirs"), "sigmoid")(3 * ones, ones, 2 * ones) == 32
    assert make_loss(LossSettings(name="optional", gamma=0.5), "sigmoid")(ones, ones, ones) == 2
    assert "remove loss.membrane_weight" in message(
        lambda: make_loss(LossSettings(name="theirs", membrane_weight=2), "sigmoid")
    )
    assert "(1, 1, 2, 2)" in message(lambda: make_loss(LossSettings(name="shaped"), "sigmoid")(ones, ones, ones))
    with pytest.raises(ValueError, match="there is no loss 'tehirs'.*did you mean 'theirs'"):
        LossSettings(name="tehirs")


def test_a_normalisation_of_a_plugin_measures_imaged_voxels_of_each_section(install: Install) -> None:
    install("their-package", "volseg.normalizations", extremes=NormalizationMode(lambda v: (v.min(), np.ptp(v))))
    raw = np.zeros((2, 3, 3), np.uint8)
    raw[0, 0], raw[1, 1] = (5, 7, 9), (4, 4, 4)
    assert NetworkSettings(normalization="extremes").normalization == "extremes"
    assert Normalization("extremes", (0.0, 1.0)).statistics_of(raw) == ((5.0, 4.0), (4.0, 1.0))


@pytest.mark.parametrize("constants", [(float("nan"), 1.0), (0.0, -1.0)])
def test_constants_that_cannot_normalise_are_refused(install: Install, constants: tuple[float, float]) -> None:
    install("their-package", "volseg.normalizations", theirs=NormalizationMode(lambda values: constants), other=7)
    raw = np.ones((1, 2, 2), np.uint8)
    assert "scale 0 or more" in message(lambda: Normalization("theirs", (0.0, 1.0)).statistics_of(raw))
    assert "declare a NormalizationMode" in message(lambda: Normalization("other", (0.0, 1.0)).statistics_of(raw))
    assert "scope" in message(lambda: NormalizationMode(lambda values: constants, scope="volume"))


class Constant:
    """A reader of volumes whose location starts with its name."""

    def __init__(self, name: str, dtype: str = "uint8") -> None:
        self.name, self.dtype = name, dtype

    def accepts(self, location: str) -> bool:
        return location.startswith(self.name)

    def open(self, location: str, dtypes: tuple[str, ...]) -> Any:
        def read(box: Box) -> np.ndarray:
            return np.full([b - a for a, b in zip(box.start, box.stop, strict=True)], 7, self.dtype)

        return SimpleNamespace(
            location=location, shape=(4, 5, 6), dtype=self.dtype, voxel_nm=(30.0, 4.0, 4.0), chunk=(1, 5, 6), read=read
        )


def test_a_reader_of_a_plugin_opens_what_it_accepts(tmp_path: Path, install: Install) -> None:
    install("their-package", "volseg.readers", seven=Constant("seven://"), odd=Constant("odd://", "complex64"))
    assert open_readable("seven://volume").read(Box((0, 0, 0), (1, 1, 2))).tolist() == [[[7, 7]]]
    stack = open_sections("seven://volume")
    assert (stack.shape, stack.place.voxel_nm) == ((4, 5, 6), (30.0, 4.0, 4.0))
    assert stack.read(1, 3).shape == (2, 5, 6)
    assert "odd://volume holds complex64" in message(lambda: open_readable("odd://volume"), SourceError)
    (tmp_path / "volume.nd2").write_text("")
    assert "odd and seven" in message(lambda: open_readable(str(tmp_path / "volume.nd2")), SourceError)
    install("other-package", "volseg.readers", again=Constant("seven"))
    assert "again and seven" in message(lambda: open_readable("seven://volume"), SourceError)


def test_a_network_with_arguments_it_does_not_take_is_refused(install: Install) -> None:
    install("their-package", "volseg.networks", theirs=Halve)
    assert "'theirs' does not take these arguments" in message(lambda: build_network("theirs", {"width": 3}))
