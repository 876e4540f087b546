"""Exports compute what the network computes; one that differs is not written."""

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

from tests.models.interop.exported import LICENSE, NETWORKS, make_named_model
from volseg.errors import ConfigError, ModelError
from volseg.models.interop.convert import export_model, generate_image
from volseg.models.model import Model, build_card, load_model_file
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
    return make_named_model(request.param)


def run_onnx(path: Path, normalized: NDArray[np.float32]) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [value.name for value in (*session.get_inputs(), *session.get_outputs())] == [INPUT, OUTPUT]
    return session.run(None, {INPUT: normalized})[0]


def test_onnx_files_accept_every_size_of_the_network(model: Model, tmp_path: Path) -> None:
    write_onnx(model, tmp_path / "m.onnx", {})
    _, y, x = model.card.footprint.smallest
    stride = model.card.footprint.stride[1]
    for batch, rows, columns in ((1, y, x), (3, y, x + 5 * stride), (2, y + 7 * stride, x + stride)):
        normalized = np.random.default_rng(rows).normal(size=(batch, 1, rows, columns)).astype(np.float32)
        with torch.inference_mode():
            logits = model.network(torch.from_numpy(normalized))
        expected = logits.softmax(dim=1) if len(model.card.classes) > 1 else logits.sigmoid()
        output = run_onnx(tmp_path / "m.onnx", normalized)
        assert output.shape[1] == len(model.card.classes)
        np.testing.assert_allclose(output, expected.numpy(), rtol=0, atol=onnx_export.TOLERANCE)


def test_onnx_files_contain_the_card(tmp_path: Path) -> None:
    import onnx

    model = make_model(tmp_path / "m.safetensors", "unet", {"width": 2, "depth": 1})
    export_model(str(model), tmp_path / "m.onnx", authors=["A. Author"], license_id=LICENSE)
    properties = {entry.key: entry.value for entry in onnx.load_model(tmp_path / "m.onnx").metadata_props}
    header = load_model_file(model)
    footprint = header.card.footprint
    assert (properties["name"], properties["digest"], properties["license"]) == ("m", header.digest, LICENSE)
    for key, value in {
        "voxel_nm": VOXEL_NM,
        "stride": footprint.stride,
        "margin": footprint.margin,
        "halo": footprint.exact_halo(),
        "classes": ("cell", "membrane"),
        "authors": ("A. Author",),
    }.items():
        assert tuple(json.loads(properties[key])) == value
    assert json.loads(properties["normalization"])["mode"] == "section"


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("fusionnet", {"width": 2, "depth": 1, "kernel": [3, 3, 3], "pool": [1, 2, 2]}),
        ("unet", {"width": 2, "depth": 1, "in_channels": 3}),
        ("sliding_window", {"width": 2, "hidden": 4, "window": 65}),
        ("fcn8s", {"width": 1}),
    ],
)
def test_other_networks_are_exported_too(tmp_path: Path, kind: str, arguments: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = build_network(kind, arguments).eval()
    normalization = Normalization("section", (0.0, 1.0))
    card = build_card(network, name="m", kind=kind, arguments=arguments, normalization=normalization, voxel_nm=VOXEL_NM)
    model = Model(network, card, "digest")
    write_onnx(model, tmp_path / "m.onnx", {})
    assert onnx_difference(model, tmp_path / "m.onnx") < onnx_export.TOLERANCE


class PoolUnpool(nn.Module):
    """Pools and unpools, like a stage of DeconvNet."""

    def __init__(self) -> None:
        super().__init__()
        from volseg.models.networks.layers import MaxUnpool2d

        self.first = nn.Conv2d(1, 3, 3, padding=1)
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), MaxUnpool2d(2)
        self.head = nn.Conv2d(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled, switches = self.pool(self.first(x))
        output: Tensor = self.head(self.unpool(pooled, switches))
        return output


def test_unpooling_is_exported(tmp_path: Path) -> None:
    model = replace(make_named_model("fusionnet"), network=PoolUnpool().eval())
    write_onnx(model, tmp_path / "m.onnx", {})
    assert onnx_difference(model, tmp_path / "m.onnx") < onnx_export.TOLERANCE


def test_a_fraction_of_voxels_is_exempt_only_with_unpooling() -> None:
    output = np.zeros((1, 1, 100, 100), np.float32)
    expected = output.copy()
    expected[0, 0, 0, :40] = 0.5
    strict = make_named_model("fusionnet")
    assert onnx_export.max_difference(strict, output, expected) == 0.5
    unpooling = replace(strict, network=PoolUnpool())
    assert onnx_export.max_difference(unpooling, output, expected) == 0.0
    assert onnx_export.max_difference(unpooling, output, output + 1) == 1.0


class Fourier(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(x).real


def test_operations_that_onnx_lacks_are_refused_in_one_line(tmp_path: Path) -> None:
    model = replace(make_named_model("fusionnet"), network=Fourier())
    with pytest.raises(ModelError, match="network 'fusionnet' .*ONNX .*fft") as refused:
        write_onnx(model, tmp_path / "m.onnx", {})
    assert "\n" not in str(refused.value)


def test_exporting_does_not_change_pydantic() -> None:
    from pydantic_core import core_schema

    assert core_schema.wrap_serializer_function_ser_schema.__module__ == core_schema.__name__


@pytest.mark.parametrize("mode", ["section", "volume", "fixed"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_generated_images_have_grey_values_like_the_training_data(mode: Any, dtype: str) -> None:
    card = make_named_model("fusionnet").card.model_copy(
        update={"normalization": Normalization(mode, (110.0, 20.0), dtype)}
    )
    grey = generate_image(card, (1, 1, 20, 50), seed=0)
    assert grey.shape == (1, 1, 20, 50)
    if mode == "fixed":
        assert (grey.mean(), grey.std()) == (pytest.approx(110, abs=25), pytest.approx(20, abs=10))
    else:
        assert grey.min() > 0
    assert dtype == "float32" or (grey == np.rint(grey)).all() or mode != "fixed"


@pytest.mark.parametrize("name", ["m.onnx", "m.zip"])
def test_exports_that_differ_are_not_written(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(tmp_path / "m.safetensors", "unet", {"width": 2, "depth": 1})
    original = onnx_export.predict_probability
    monkeypatch.setattr(onnx_export, "predict_probability", lambda *arguments: original(*arguments) + 0.001)
    with pytest.raises(ModelError, match=r"differs from the network by 0\.001, more than 0\.0001; not exported"):
        export_model(str(model), tmp_path / name, license_id=LICENSE)
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def test_existing_files_are_not_overwritten(tmp_path: Path, small_model: Path) -> None:
    (tmp_path / "m.onnx").write_text("content")
    with pytest.raises(ModelError, match="exists already; choose another name"):
        export_model(str(small_model), tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_text() == "content"


@pytest.mark.parametrize("package_name", ["onnx", "onnxruntime"])
def test_missing_packages_are_named_in_one_line(
    tmp_path: Path, small_model: Path, package_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "volseg.models.interop.onnx_export")
    monkeypatch.setitem(sys.modules, package_name, None)
    with pytest.raises(
        ConfigError, match=rf"needs {package_name}, which is not installed; pip install 'volseg\[export"
    ):
        export_model(str(small_model), tmp_path / "m.onnx")
