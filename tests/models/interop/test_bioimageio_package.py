"""bioimage.io packages pass the official tools, and predict the map of volseg."""

from __future__ import annotations

import copy
import zipfile
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.models.interop.exported import LICENSE, NETWORKS, make_named_model
from volseg.errors import ConfigError, ModelError
from volseg.models.interop.convert import export_model, generate_image

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from volseg.models.model import Model

if any(find_spec(package) is None for package in ("onnx", "onnxruntime", "bioimageio")):
    pytest.skip("exporting needs pip install 'volseg[export]'", allow_module_level=True)

from volseg.models.interop import bioimageio_package as packages
from volseg.models.interop.bioimageio_description import axis_sizes, exact_scale
from volseg.models.interop.onnx_export import OUTPUT, TOLERANCE, predict_probability


def test_errors_of_bioimageio_become_model_errors(tmp_path: Path) -> None:
    (tmp_path / "m.zip").write_text("no zip")
    with pytest.raises(ModelError, match="not exported"):
        packages.package_difference(make_named_model("unet"), tmp_path / "m.zip", np.zeros((1, 1, 44, 44), np.float32))


def grey_image(model: Model, core: int, seed: int = 7) -> NDArray[np.float32]:
    return generate_image(model.card, packages.image_shape(model, core), seed)


@pytest.fixture(scope="module")
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model and its package."""
    folder = tmp_path_factory.mktemp("package")
    model = make_named_model(request.param)
    (folder / "parts").mkdir()
    packages.write_package(model, grey_image(model, 40), folder / "parts", folder / "m.zip", ["A. Author"])
    return model, folder / "m.zip"


@pytest.mark.parametrize("package", NETWORKS, indirect=True)
def test_packages_pass_bioimageio_core_and_predict_the_map_of_volseg(package: Any) -> None:
    model, path = package
    # Another image than the test image, of another size.
    assert packages.package_difference(model, path, grey_image(model, 24)) < TOLERANCE


@packages.silenced()
def predict_in_blocks(path: Path, grey: NDArray[np.float32]) -> Any:
    from bioimageio.core import predict

    members: Any = predict(model=path, inputs=grey, blocksize_parameter=10).members
    return members[OUTPUT].data.values


@pytest.mark.parametrize("package", ["fusionnet", "unet-padded"], indirect=True)
def test_blocks_of_bioimageio_core_leave_no_seams(package: Any) -> None:
    model, path = package
    sizes = axis_sizes(model)
    halo = sizes["y"].halo
    rows, columns = (sizes["y"].minimum + n * sizes["y"].step for n in (10, 30))
    grey = generate_image(model.card, (1, 1, rows, columns), seed=3)
    padding = [(0, 0), (0, 0), (halo, halo), (halo, halo)]
    whole = predict_probability(model, np.pad(packages.normalized(model, grey), padding, mode="reflect"))
    whole = whole[..., halo : halo + rows, halo : halo + columns]
    np.testing.assert_allclose(predict_in_blocks(path, grey), whole, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("package", NETWORKS, indirect=True)
def test_packages_state_the_input_sizes_of_the_network(package: Any) -> None:
    model, path = package
    with zipfile.ZipFile(path) as archive:
        # yaml has no types.
        rdf = import_module("yaml").safe_load(archive.read("rdf.yaml"))
        assert {"cover.png", "README.md", "weights.onnx"} <= set(archive.namelist())
        assert "## Validation" in archive.read("README.md").decode()
    inputs, outputs = rdf["inputs"][0]["axes"], rdf["outputs"][0]["axes"]
    assert [axis.get("id", axis["type"]) for axis in inputs] == ["batch", "channel", "y", "x"]
    assert outputs[1]["channel_names"] == list(model.card.classes)
    for n in (0, 1, 4):
        shape = (1, 1, *(axis["size"]["min"] + n * axis["size"]["step"] for axis in inputs[2:]))
        with torch.inference_mode():
            sides = model.network(torch.zeros(shape)).shape[2:]
        assert [side + axis["size"]["offset"] for side, axis in zip(shape[2:], outputs[2:], strict=True)] == list(sides)
    halo = 0 if model.card.footprint.margin[1] else model.card.footprint.exact_halo()[1]
    for axis in outputs[2:]:
        assert (axis["unit"], axis["scale"], axis.get("halo", 0)) == ("nanometer", pytest.approx(4.2, rel=1e-3), halo)
    assert (rdf["license"], rdf["authors"]) == (LICENSE, [{"name": "A. Author"}])


@given(nm=st.floats(0.01, 1000), size=st.integers(1, 8191))
def test_scales_keep_sizes_exact(nm: float, size: int) -> None:
    scale = exact_scale(nm)
    assert int(size * scale / scale) == size
    assert abs(scale - nm) <= 1 / 1024


@pytest.mark.parametrize("license_id", ["not stated", "ask me", "MIT licence"])
def test_licences_without_spdx_identifier_are_refused(tmp_path: Path, small_model: Path, license_id: str) -> None:
    with pytest.raises(ConfigError, match=f"SPDX licence identifier, .*'{license_id}'; .*--license CC-BY"):
        export_model(str(small_model), tmp_path / "m.zip", license_id=license_id)
    assert not (tmp_path / "m.zip").exists()


@pytest.mark.parametrize("package", ["unet"], indirect=True)
def test_packages_with_another_prediction_are_refused(package: Any) -> None:
    model, path = package
    other = copy.deepcopy(model)
    other.network.get_submodule("head").bias.data += torch.tensor([0.0, 0.1])
    with pytest.raises(ModelError, match=r"bioimageio.core's prediction .* differs from volseg's by .*not exported"):
        packages.package_difference(other, path, grey_image(model, 16))
