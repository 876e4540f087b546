"""Options of a prediction: what is accepted for each, and which tolerances are valid."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_type_hints

import pytest

from volseg.config import PredictConfig, PredictOptions, validate
from volseg.config.tolerance import Tolerance
from volseg.errors import ConfigError

REQUIRED: dict[str, Any] = {"source": "raw.zarr", "target": "out.zarr", "model": "m.safetensors"}


def config(**options: Any) -> PredictConfig:
    return validate(PredictConfig, {**REQUIRED, **options}, "predict")


def test_the_options_of_python_are_those_of_the_config() -> None:
    assert get_type_hints(PredictOptions).keys() | REQUIRED.keys() == PredictConfig.model_fields.keys()


def test_paths_and_lists_are_accepted() -> None:
    assert config(source=Path("a"), mask=Path("b")) == config(source="a", mask="b")
    assert config(model=[Path("a"), "b"]).model == ("a", "b")
    assert config(model="a").model == ("a",)
    assert config(classes=["cell", "membrane"]).classes == "cell,membrane"


def test_a_tolerance_is_an_object_or_percent_and_grey_levels() -> None:
    assert config(halo_tolerance=(99, 8)).halo_tolerance == Tolerance(0.99, 8)
    assert config(halo_tolerance=Tolerance(0.99, 4)).halo_tolerance == Tolerance(0.99, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": 3}, "predict: unknown key 'blocks' .did you mean 'block'..; choose from source, target"),
        ({"workers": 0}, r"predict: workers: .*\(given: 0\)"),
        ({"model": []}, "predict: model: .*at least 1"),
        ({"halo": "wide"}, "predict: halo"),
        ({"halo_tolerance": (101, 8)}, "tolerance 101,8 .*such as 99.9,8"),
    ],
)
def test_invalid_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**options)


@pytest.mark.parametrize(("fraction", "max_error"), [(0, 8), (1.1, 8), (0.9, -1), (0.9, 300), (float("nan"), 8)])
def test_a_tolerance_out_of_range_is_refused(fraction: float, max_error: float) -> None:
    with pytest.raises(ConfigError, match=r"out of range; .* such as 99\.9,8"):
        Tolerance(fraction, max_error)
