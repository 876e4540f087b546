"""What is exported computes what the network computes, whatever runs it, and is not there if it does not."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.models.interop.exported import NETWORKS, TERMS, model_of
from volseg.errors import ConfigError, ModelError
from volseg.models.interop.convert import export_model, generated_image
from volseg.models.model import Model, card_for, load_model_file
from volseg.models.registry import build_network
from volseg.ops import Normalization
from volseg.testing.factories import VOXEL_NM, make_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

if any(find_spec(package) is None for package in ("onnx", "onnxruntime", "bioimageio")):
    pytest.skip("exporting needs pip install 'volseg[export]'", allow_module_level=True)

from volseg.models.interop import onnx_export
from volseg.models.interop.onnx_export import INPUT, OUTPUT, onnx_difference, write_onnx


@pytest.fixture(params=NETWORKS)
def model(request: pytest.FixtureRequest) -> Model:
    return model_of(request.param)


def run(path: Path, normalized: NDArray[np.float32]) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [value.name for value in (*session.get_inputs(), *session.get_outputs())] == [INPUT, OUTPUT]
    return session.run(None, {INPUT: normalized})[0]


def test_an_onnx_file_takes_every_size_that_the_network_takes(model: Model, tmp_path: Path) -> None:
    write_onnx(model, tmp_path / "m.onnx", {})
    _, y, x = model.card.footprint.smallest
    stride = model.card.footprint.stride[1]
    for batch, rows, columns in ((1, y, x), (3, y, x + 5 * stride), (2, y + 7 * stride, x + stride)):
        normalized = np.random.default_rng(rows).normal(size=(batch, 1, rows, columns)).astype(np.float32)
        with torch.inference_mode():
            output = model.network(torch.from_numpy(normalized))
        expected = output.softmax(dim=1) if len(model.card.classes) > 1 else output.sigmoid()
        made = run(tmp_path / "m.onnx", normalized)
        assert made.shape[1] == len(model.card.classes)
        np.testing.assert_allclose(made, expected.numpy(), rtol=0, atol=onnx_export.TOLERANCE)


def test_an_onnx_file_carries_the_card(tmp_path: Path) -> None:
    import onnx

    model = make_model(tmp_path / "m.safetensors", "unet", {"width": 2, "depth": 1})
    export_model(str(model), tmp_path / "m.onnx", authors=["A. Author"], license_id=TERMS)
    said = {entry.key: entry.value for entry in onnx.load_model(tmp_path / "m.onnx").metadata_props}
    header = load_model_file(model)
    footprint = header.card.footprint
    assert (said["name"], said["digest"], said["license"]) == ("m", header.digest, TERMS)
    for key, value in {
        "voxel_nm": VOXEL_NM,
        "stride": footprint.stride,
        "margin": footprint.margin,
        "halo": footprint.exact_halo(),
        "classes": ("cell", "membrane"),
        "authors": ("A. Author",),
    }.items():
        assert tuple(json.loads(said[key])) == value
    assert json.loads(said["normalization"])["mode"] == "section"


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("fusionnet", {"width": 2, "depth": 1, "kernel": [3, 3, 3], "pool": [1, 2, 2]}),
        ("unet", {"width": 2, "depth": 1, "in_channels": 3}),
        ("sliding_window", {"width": 2, "hidden": 4, "window": 65}),
        ("fcn8s", {"width": 1}),
    ],
)
def test_other_networks_have_an_onnx_form_as_well(tmp_path: Path, kind: str, arguments: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = build_network(kind, arguments).eval()
    normalization = Normalization("section", (0.0, 1.0))
    card = card_for(network, name="m", kind=kind, arguments=arguments, normalization=normalization, voxel_nm=VOXEL_NM)
    model = Model(network, card, "digest")
    write_onnx(model, tmp_path / "m.onnx", {})
    assert onnx_difference(model, tmp_path / "m.onnx") < onnx_export.TOLERANCE


class Switches(nn.Module):
    """Pools, and puts back where the switches say: what DeconvNet does at each of its stages."""

    def __init__(self) -> None:
        super().__init__()
        from volseg.models.networks.layers import Unpool

        self.first = nn.Conv2d(1, 3, 3, padding=1)
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), Unpool(2)
        self.head = nn.Conv2d(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled, switches = self.pool(self.first(x))
        out: Tensor = self.head(self.unpool(pooled, switches))
        return out


def test_unpooling_by_switches_has_an_onnx_form(tmp_path: Path) -> None:
    model = replace(model_of("fusionnet"), network=Switches().eval())
    write_onnx(model, tmp_path / "m.onnx", {})
    assert onnx_difference(model, tmp_path / "m.onnx") < onnx_export.TOLERANCE


def test_single_voxels_may_differ_where_switches_decide_and_nowhere_else() -> None:
    made = np.zeros((1, 1, 100, 100), np.float32)
    expected = made.copy()
    expected[0, 0, 0, :40] = 0.5
    strict = model_of("fusionnet")
    assert onnx_export.difference(strict, made, expected) == 0.5
    assert onnx_export.difference(replace(strict, network=Switches()), made, expected) == 0.0
    assert onnx_export.difference(replace(strict, network=Switches()), made, made + 1) == 1.0


class Fourier(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(x).real


def test_what_has_no_onnx_form_is_refused_in_one_line(tmp_path: Path) -> None:
    model = replace(model_of("fusionnet"), network=Fourier())
    with pytest.raises(ModelError, match="network 'fusionnet' .*ONNX .*fft") as refused:
        write_onnx(model, tmp_path / "m.onnx", {})
    assert "\n" not in str(refused.value)


def test_pydantic_is_left_as_it_was() -> None:
    from pydantic_core import core_schema

    assert core_schema.wrap_serializer_function_ser_schema.__module__ == core_schema.__name__


@pytest.mark.parametrize("mode", ["section", "volume", "fixed"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_the_generated_image_is_such_as_the_model_was_made_for(mode: Any, dtype: str) -> None:
    card = model_of("fusionnet").card.model_copy(update={"normalization": Normalization(mode, (110.0, 20.0), dtype)})
    grey = generated_image(card, (1, 1, 20, 50), seed=0)
    assert grey.shape == (1, 1, 20, 50)
    if mode == "fixed":
        assert (grey.mean(), grey.std()) == (pytest.approx(110, abs=25), pytest.approx(20, abs=10))
    else:
        assert grey.min() > 0
    assert dtype == "float32" or (grey == np.rint(grey)).all() or mode != "fixed"


@pytest.mark.parametrize("name", ["m.onnx", "m.zip"])
def test_an_export_that_differs_is_not_there(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(tmp_path / "m.safetensors", "unet", {"width": 2, "depth": 1})
    honest = onnx_export.probability
    monkeypatch.setattr(onnx_export, "probability", lambda *given: honest(*given) + 0.001)
    with pytest.raises(ModelError, match=r"differs from the network by 0\.001, more than 0\.0001; not exported"):
        export_model(str(model), tmp_path / name, license_id=TERMS)
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def test_nothing_is_overwritten(tmp_path: Path, small_model: Path) -> None:
    (tmp_path / "m.onnx").write_text("mine")
    with pytest.raises(ModelError, match="exists already; choose another name"):
        export_model(str(small_model), tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_text() == "mine"


@pytest.mark.parametrize("package_name", ["onnx", "onnxruntime"])
def test_without_the_extra_one_line_says_what_to_install(
    tmp_path: Path, small_model: Path, package_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "volseg.models.interop.onnx_export")
    monkeypatch.setitem(sys.modules, package_name, None)
    with pytest.raises(
        ConfigError, match=rf"needs {package_name}, which is not installed; pip install 'volseg\[export"
    ):
        export_model(str(small_model), tmp_path / "m.onnx")
