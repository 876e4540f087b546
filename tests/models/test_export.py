"""What is exported computes what the network computes, whatever runs it, and is not there if it does not."""

from __future__ import annotations

import copy
import json
import sys
import zipfile
from dataclasses import replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.makers import VOXEL_NM, make_model, random_network
from volseg.errors import ConfigError, ModelError
from volseg.exchange import export_model, generated_image
from volseg.models.model import Model, card_for, load_model_file
from volseg.models.registry import build_network
from volseg.ops import Normalization

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

if any(find_spec(package) is None for package in ("onnx", "onnxruntime", "bioimageio")):
    pytest.skip("exporting needs pip install 'volseg[export]'", allow_module_level=True)

from volseg.models import bioimageio as packages
from volseg.models import onnx_export
from volseg.models.onnx_export import INPUT, OUTPUT, onnx_difference, probability, write_onnx

NETWORKS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "fusionnet": ("fusionnet", {"width": 3, "depth": 2}, "section"),
    "unet": ("unet", {"width": 3, "depth": 2}, "fixed"),
    "unet-padded": ("unet", {"width": 3, "depth": 1, "padded": True, "batch_norm": True}, "volume"),
}
TERMS = "CC-BY-4.0"


@cache
def model_of(name: str) -> Model:
    kind, arguments, mode = NETWORKS[name]
    network = random_network(kind, arguments)
    card = card_for(
        network,
        name=name,
        kind=kind,
        arguments=arguments,
        normalization=Normalization(mode, (110.0, 40.0)),
        voxel_nm=(50.0, 4.2, 4.2),
        license=TERMS,
    )
    return Model(network, card, "digest")


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
        from volseg.models.layers import Unpool

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
    with pytest.raises(ModelError, match="network 'fusionnet' does what ONNX has no form for .*fft") as refused:
        write_onnx(model, tmp_path / "m.onnx", {})
    assert "\n" not in str(refused.value)


def test_pydantic_is_left_as_it_was() -> None:
    from pydantic_core import core_schema

    assert core_schema.wrap_serializer_function_ser_schema.__module__ == core_schema.__name__


def test_what_bioimageio_raises_is_one_of_our_errors(tmp_path: Path) -> None:
    (tmp_path / "m.zip").write_text("no zip")
    with pytest.raises(ModelError, match="not exported"):
        packages.package_difference(model_of("unet"), tmp_path / "m.zip", np.zeros((1, 1, 44, 44), np.float32))


def grey_image(model: Model, core: int, seed: int = 7) -> NDArray[np.float32]:
    return generated_image(model.card, packages.image_shape(model, core), seed)


@pytest.fixture(scope="module")
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model and its package."""
    folder = tmp_path_factory.mktemp("package")
    model = model_of(request.param)
    (folder / "parts").mkdir()
    packages.write_package(model, grey_image(model, 40), folder / "parts", folder / "m.zip", ["A. Author"])
    return model, folder / "m.zip"


@pytest.mark.parametrize("package", NETWORKS, indirect=True)
def test_bioimageio_core_passes_a_package_and_predicts_what_volseg_predicts(package: Any) -> None:
    model, path = package
    # Another image than the package's own, and of another size.
    assert packages.package_difference(model, path, grey_image(model, 24)) < onnx_export.TOLERANCE


@packages.quietly()
def in_blocks(path: Path, grey: NDArray[np.float32]) -> Any:
    from bioimageio.core import predict

    members: Any = predict(model=path, inputs=grey, blocksize_parameter=10).members
    return members[OUTPUT].data.values


@pytest.mark.parametrize("package", ["fusionnet", "unet-padded"], indirect=True)
def test_blocks_that_bioimageio_core_makes_leave_no_seams(package: Any) -> None:
    model, path = package
    sizes = packages.extents(model)
    halo = sizes["y"].halo
    rows, columns = (sizes["y"].least + n * sizes["y"].step for n in (10, 30))
    grey = generated_image(model.card, (1, 1, rows, columns), seed=3)
    around = [(0, 0), (0, 0), (halo, halo), (halo, halo)]
    whole = probability(model, np.pad(packages.normalized(model, grey), around, mode="reflect"))
    whole = whole[..., halo : halo + rows, halo : halo + columns]
    np.testing.assert_allclose(in_blocks(path, grey), whole, rtol=0, atol=onnx_export.TOLERANCE)


@pytest.mark.parametrize("package", NETWORKS, indirect=True)
def test_a_package_states_the_sizes_that_the_network_takes(package: Any) -> None:
    model, path = package
    with zipfile.ZipFile(path) as archive:
        # yaml ships no types.
        said = import_module("yaml").safe_load(archive.read("rdf.yaml"))
        assert {"cover.png", "README.md", "weights.onnx"} <= set(archive.namelist())
        assert "## Validation" in archive.read("README.md").decode()
    taken, made = said["inputs"][0]["axes"], said["outputs"][0]["axes"]
    assert [axis.get("id", axis["type"]) for axis in taken] == ["batch", "channel", "y", "x"]
    assert made[1]["channel_names"] == list(model.card.classes)
    for n in (0, 1, 4):
        shape = (1, 1, *(axis["size"]["min"] + n * axis["size"]["step"] for axis in taken[2:]))
        with torch.inference_mode():
            out = model.network(torch.zeros(shape)).shape[2:]
        assert [side + axis["size"]["offset"] for side, axis in zip(shape[2:], made[2:], strict=True)] == list(out)
    halo = 0 if model.card.footprint.margin[1] else model.card.footprint.exact_halo()[1]
    for axis in made[2:]:
        assert (axis["unit"], axis["scale"], axis.get("halo", 0)) == ("nanometer", pytest.approx(4.2, rel=1e-3), halo)
    assert (said["license"], said["authors"]) == (TERMS, [{"name": "A. Author"}])


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


@given(nm=st.floats(0.01, 1000), size=st.integers(1, 8191))
def test_sizes_do_not_shrink_by_a_voxel_for_the_sake_of_units(nm: float, size: int) -> None:
    scale = packages.exact_scale(nm)
    assert int(size * scale / scale) == size
    assert abs(scale - nm) <= 1 / 1024


@pytest.mark.parametrize("terms", ["not stated", "ask me", "MIT licence"])
def test_a_licence_that_a_package_cannot_state_is_refused(tmp_path: Path, small_model: Path, terms: str) -> None:
    with pytest.raises(ConfigError, match=f"SPDX identifier of its licence, and '{terms}' is none; .*--license CC-BY"):
        export_model(str(small_model), tmp_path / "m.zip", license_id=terms)
    assert not (tmp_path / "m.zip").exists()


@pytest.mark.parametrize("name", ["m.onnx", "m.zip"])
def test_an_export_that_differs_is_not_there(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(tmp_path / "m.safetensors", "unet", {"width": 2, "depth": 1})
    honest = onnx_export.probability
    monkeypatch.setattr(onnx_export, "probability", lambda *given: honest(*given) + 0.001)
    with pytest.raises(ModelError, match=r"differs from the network by 0\.001, more than 0\.0001; not exported"):
        export_model(str(model), tmp_path / name, license_id=TERMS)
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


@pytest.mark.parametrize("package", ["unet"], indirect=True)
def test_a_package_that_predicts_otherwise_is_refused(package: Any) -> None:
    model, path = package
    other = copy.deepcopy(model)
    other.network.get_submodule("head").bias.data += torch.tensor([0.0, 0.1])
    with pytest.raises(ModelError, match=r"bioimageio.core's prediction .* differs from volseg's by .*not exported"):
        packages.package_difference(other, path, grey_image(model, 16))


def test_nothing_is_overwritten(tmp_path: Path, small_model: Path) -> None:
    (tmp_path / "m.onnx").write_text("mine")
    with pytest.raises(ModelError, match="exists already; choose another name"):
        export_model(str(small_model), tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_text() == "mine"


@pytest.mark.parametrize("package_name", ["onnx", "onnxruntime"])
def test_without_the_extra_one_line_says_what_to_install(
    tmp_path: Path, small_model: Path, package_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "volseg.models.onnx_export")
    monkeypatch.setitem(sys.modules, package_name, None)
    with pytest.raises(
        ConfigError, match=rf"needs {package_name}, which is not installed; pip install 'volseg\[export"
    ):
        export_model(str(small_model), tmp_path / "m.onnx")
