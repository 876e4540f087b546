"""The public face of the package."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray

import volseg
import volseg.errors
from volseg.errors import ConfigError, SourceError
from volseg.testing.factories import blobs

FUNCTIONS = {
    "convert",
    "evaluate",
    "list_models",
    "load_model",
    "membrane_probability",
    "open_viewer",
    "predict",
    "pyramid",
    "train",
    "verify",
}
RESULTS = {
    "Conversion",
    "InstanceScores",
    "MapScores",
    "Model",
    "PyramidSummary",
    "Session",
    "Summary",
    "TrainingResult",
    "VerifyReport",
}


def test_the_public_names_are_functions_results_and_errors() -> None:
    errors = {
        name
        for name, value in vars(volseg.errors).items()
        if inspect.isclass(value) and issubclass(value, volseg.VolsegError)
    }
    assert set(volseg.__all__) == FUNCTIONS | RESULTS | errors | {"__version__"}
    for name in volseg.__all__:
        assert getattr(volseg, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'fit'"):
        _ = volseg.fit


def test_no_public_name_is_that_of_a_module() -> None:
    """Importing `volseg.models` would replace a function `volseg.models`."""
    folder = Path(volseg.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    assert not modules & set(volseg.__all__)


def test_every_public_function_states_its_arguments_and_errors() -> None:
    for name in FUNCTIONS - {"list_models"}:
        text = inspect.getdoc(getattr(volseg, name)) or ""
        assert "Args:" in text, name
        assert "Raises:" in text, name


def test_importing_volseg_loads_neither_torch_nor_dask() -> None:
    code = "import sys, volseg; print(sorted({'torch', 'dask', 'zarr', 'distributed'} & set(sys.modules)))"
    environment = {"PYTHONPATH": str(Path(volseg.__file__).parents[1])}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert result.stdout.strip() == "[]"


def test_the_models_are_listed() -> None:
    listed = volseg.list_models()
    assert {"fusionnet", "unet"} <= {network["name"] for network in listed["networks"]}
    assert "fusionnet-isbi2012" in {model["name"] for model in listed["packaged"]}


@pytest.fixture(scope="module")
def raw() -> np.ndarray:
    return blobs((3, 40, 50))


@pytest.fixture(scope="module")
def expected(raw: np.ndarray, small_model: Path) -> np.ndarray:
    lazy = volseg.membrane_probability(da.from_array(raw, chunks=(2, 40, 50)), str(small_model))
    probability: np.ndarray = lazy.compute()
    return probability


def test_numpy_arrays_come_back_as_numpy_arrays(raw: np.ndarray, expected: np.ndarray, small_model: Path) -> None:
    probability = volseg.membrane_probability(raw, str(small_model))
    assert type(probability) is np.ndarray
    np.testing.assert_allclose(probability, expected, atol=1e-5)


@pytest.mark.parametrize("lazy", [True, False])
def test_xarray_keeps_coordinates_and_laziness(
    raw: np.ndarray, expected: np.ndarray, small_model: Path, lazy: bool
) -> None:
    data = da.from_array(raw, chunks=(2, 40, 50)) if lazy else raw
    array = xarray.DataArray(data, dims=("z", "y", "x"), coords={"z": [10, 20, 30]}, name="raw")
    probability = volseg.membrane_probability(array, str(small_model))
    assert isinstance(probability.data, da.Array if lazy else np.ndarray)
    assert probability.z.values.tolist() == [10, 20, 30]
    np.testing.assert_allclose(probability.values, expected, atol=1e-5)
    with pytest.raises(SourceError, match="z, y, x"):
        volseg.membrane_probability(array.transpose("x", "y", "z"), str(small_model))


def test_the_precision_is_used(raw: np.ndarray, expected: np.ndarray, small_model: Path) -> None:
    lower = volseg.membrane_probability(raw, str(small_model), precision="bfloat16")
    error = np.abs(lower - expected).max()
    assert 1e-5 < error < 0.2


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"device": "tpu"}, "'tpu'.*cpu, cuda"),
        ({"precision": "int8"}, "'int8'.*float32"),
        ({"precision": "float16"}, "float16.*cuda"),
    ],
)
def test_wrong_options_are_refused(raw: np.ndarray, small_model: Path, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        volseg.membrane_probability(raw, str(small_model), **options)


@pytest.mark.parametrize("array", [[[1, 2]], np.zeros((2, 2)), np.zeros((2, 2, 2), bool)])
def test_what_is_not_a_volume_is_refused(array: Any, small_model: Path) -> None:
    with pytest.raises(SourceError):
        volseg.membrane_probability(array, str(small_model))
