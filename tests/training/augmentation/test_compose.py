"""All augmentations together: a patch depends on its seed only, and labels stay valid."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.training.augmentation.samples import STACK, make_sample, same
from volseg.config.train_tables import AugmentationSettings
from volseg.training.augmentation import make_augmentation
from volseg.training.data.sample import IGNORED

NONE: dict[str, Any] = {
    "orientations": False,
    "elastic": "none",
    **dict.fromkeys(("brightness", "contrast", "gamma", "noise", "blur"), 0.0),
}
OFF = AugmentationSettings(**NONE)
ON: dict[str, dict[str, Any]] = {
    "orientations": {"orientations": True},
    "grid": {"elastic": "grid", "elastic_probability": 1},
    "field": {"elastic": "field", "elastic_probability": 1, "elastic_points": 12, "elastic_std": 3},
    "misalignment": {"misalignment": 1},
    "blur": {"blur": 2, "blur_probability": 1},
    "defocus": {"defocus": 1},
    "gamma": {"gamma": 0.3},
    "contrast": {"contrast": 0.3},
    "brightness": {"brightness": 0.3},
    "shading": {"shading": 1},
    "fold": {"fold": 1},
    "noise": {"noise": 0.3},
    "missing": {"missing": 0.5},
}
GEOMETRY = {"orientations", "grid", "field", "misalignment", "fold"}
EVERYTHING = AugmentationSettings(**{key: value for some in ON.values() for key, value in some.items()})


def only(name: str) -> AugmentationSettings:
    return AugmentationSettings(**{**NONE, **ON[name]})


@pytest.mark.parametrize("flip_z", [False, True])
def test_without_augmentations_the_sample_is_returned(flip_z: bool) -> None:
    sample = make_sample(STACK)
    assert make_augmentation(OFF, flip_z=flip_z)(sample) is sample


@pytest.mark.parametrize("name", ON)
def test_each_augmentation_changes_raw_and_only_geometry_changes_labels(name: str) -> None:
    sample = make_sample(STACK)
    after = make_augmentation(only(name), flip_z=True)(sample)
    assert not torch.equal(after.raw, sample.raw)
    assert torch.equal(after.labels, sample.labels) == (name not in GEOMETRY)
    assert after.weights is not None
    assert sample.weights is not None
    assert torch.equal(after.weights, sample.weights) == (name not in GEOMETRY)


@pytest.mark.parametrize("name", ON)
def test_the_input_sample_is_not_modified(name: str) -> None:
    sample, original = make_sample(STACK), make_sample(STACK)
    make_augmentation(only(name), flip_z=True)(sample)
    assert same(sample, original)


@settings(deadline=None, max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 24), st.integers(1, 24)),
    seed=st.integers(0, 2**40),
    flip_z=st.booleans(),
    weights=st.booleans(),
)
def test_shapes_types_and_label_values_are_kept(shape, seed, flip_z, weights) -> None:
    sample = make_sample(shape, seed=seed, weights=weights)
    after = make_augmentation(EVERYTHING, flip_z=flip_z)(sample)
    assert after.raw.shape == after.labels.shape == shape
    assert (after.raw.dtype, after.labels.dtype) == (torch.float32, torch.int32)
    assert bool(after.raw.isfinite().all())
    assert torch.equal(after.seeds, sample.seeds)
    assert set(after.labels.unique().tolist()) <= {*sample.labels.unique().tolist(), IGNORED}
    if sample.weights is None:
        assert after.weights is None
    else:
        assert after.weights is not None
        assert set(after.weights.unique().tolist()) <= set(sample.weights.unique().tolist())


@pytest.mark.parametrize("name", [*ON, "everything"])
@pytest.mark.parametrize("shape", [(3, 1, 64, 64), (3, 5, 21, 33)])
def test_a_patch_is_the_same_alone_and_in_any_batch(name: str, shape: tuple[int, int, int, int]) -> None:
    augment = make_augmentation(EVERYTHING if name == "everything" else only(name), flip_z=True)
    sample = make_sample(shape)
    together = augment(sample)
    assert sample.weights is not None
    assert together.weights is not None
    for i in (2, 0):
        alone = augment(
            replace(
                sample,
                raw=sample.raw[[i]],
                labels=sample.labels[[i]],
                weights=sample.weights[[i]],
                seeds=sample.seeds[[i]],
            )
        )
        torch.testing.assert_close(alone.raw[0], together.raw[i], rtol=1e-5, atol=1e-5)
        assert torch.equal(alone.labels[0], together.labels[i])
        assert torch.equal(alone.weights[0], together.weights[i])  # type: ignore[index]


def test_equal_seeds_give_equal_patches_and_others_differ() -> None:
    augment = make_augmentation(EVERYTHING, flip_z=True)
    sample = make_sample()
    assert same(augment(sample), augment(sample))
    twins = replace(sample, raw=sample.raw[[0, 0, 0]], labels=sample.labels[[0, 0, 0]], seeds=torch.tensor([4, 4, -5]))
    after = augment(twins)
    assert torch.equal(after.raw[0], after.raw[1])
    assert not torch.allclose(after.raw[0], after.raw[2])


def test_switching_one_on_does_not_change_the_others() -> None:
    sample = make_sample()
    bright = make_augmentation(only("brightness"), flip_z=False)(sample).raw - sample.raw
    both = AugmentationSettings(**{**NONE, **ON["brightness"], **ON["gamma"]})
    gamma = make_augmentation(only("gamma"), flip_z=False)(sample).raw
    torch.testing.assert_close(make_augmentation(both, flip_z=False)(sample).raw - gamma, bright, rtol=0, atol=1e-6)


def test_patches_are_flipped_along_z_only_if_requested() -> None:
    sample = make_sample((32, 3, 1, 1))
    raw = torch.arange(3.0).view(1, 3, 1, 1).expand(sample.raw.shape).contiguous()
    for flip_z, orders in ((False, {(0, 1, 2)}), (True, {(0, 1, 2), (2, 1, 0)})):
        after = make_augmentation(only("orientations"), flip_z=flip_z)(replace(sample, raw=raw))
        assert {tuple(int(v) for v in patch.flatten()) for patch in after.raw} == orders


@pytest.mark.parametrize("name", sorted(ON.keys() - {"noise"}))  # needs a generator of the device
def test_all_tensors_stay_on_the_device_of_the_sample(name: str) -> None:
    sample = make_sample(STACK).to("meta")
    after = make_augmentation(only(name), flip_z=True)(sample)
    assert {after.raw.device.type, after.labels.device.type} == {"meta"}


def test_default_settings_change_grey_values_little() -> None:
    sample = make_sample((4, 1, 64, 64))
    after = make_augmentation(AugmentationSettings(), flip_z=False)(sample)
    assert not same(after, sample)
    assert bool((after.raw.mean((1, 2, 3)).abs() < 0.5).all())
    assert bool((after.raw.std((1, 2, 3)) < 1.5).all())
    assert IGNORED in sample.labels
    assert np.isclose((after.labels == IGNORED).float().mean(), (sample.labels == IGNORED).float().mean(), atol=0.1)


def test_a_field_without_inner_points_is_refused() -> None:
    with pytest.raises(ValidationError, match="elastic_points 2 .* give 3 or more"):
        AugmentationSettings(elastic="field", elastic_points=2)
