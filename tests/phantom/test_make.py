"""Laws of the generated tissue: what its labels promise, and what its image shows."""

import numpy as np
import pytest
from scipy import ndimage
from skimage import measure

from volseg.errors import ConfigError
from volseg.phantom import Phantom, make_phantom


@pytest.fixture(scope="module")
def phantom():
    return make_phantom((12, 224, 224), seed=7)


@pytest.fixture(scope="module")
def cytoplasm(phantom):
    """Inside the cells, well away from any membrane."""
    near_membrane = ndimage.binary_dilation(phantom.labels == 0, np.ones((1, 9, 9), bool))
    return ~near_membrane


def test_same_seed_gives_same_bytes():
    first, again = (make_phantom((3, 48, 64), seed=5) for _ in range(2))
    assert first.raw.tobytes() == again.raw.tobytes()
    assert first.labels.tobytes() == again.labels.tobytes()


def test_other_seed_gives_other_bytes():
    first, other = (make_phantom((3, 48, 64), seed=seed) for seed in (5, 6))
    assert first.raw.tobytes() != other.raw.tobytes()
    assert first.labels.tobytes() != other.labels.tobytes()


def test_global_random_state_is_neither_read_nor_moved():
    np.random.seed(1)  # noqa: NPY002  the law is about this very state
    before = make_phantom((1, 32, 32), seed=0).raw
    here = str(np.random.get_state())  # noqa: NPY002
    after = make_phantom((1, 32, 32), seed=0).raw
    np.testing.assert_array_equal(before, after)
    assert here == str(np.random.get_state())  # noqa: NPY002


@pytest.mark.parametrize("shape", [(1, 32, 32), (2, 33, 47), (5, 32, 101)])
def test_any_shape_from_the_smallest_works(shape):
    phantom = make_phantom(shape, seed=0)
    assert phantom.raw.shape == phantom.labels.shape == shape
    assert phantom.raw.dtype == np.uint8
    assert phantom.labels.dtype == np.uint16


@pytest.mark.parametrize("voxel_nm", [(40.0, 4.0, 4.0), (8.0, 8.0, 8.0), (30.0, 12.0, 10.0), (50.0, 25.0, 25.0)])
def test_any_voxel_size_gives_cells_and_membranes(voxel_nm):
    phantom = make_phantom((3, 64, 64), seed=0, voxel_nm=voxel_nm)
    assert phantom.voxel_nm == voxel_nm
    assert phantom.labels.any()
    assert (phantom.labels == 0).any()


def test_ids_are_one_to_n_and_each_is_one_connected_cell(phantom):
    ids = np.unique(phantom.labels)
    np.testing.assert_array_equal(ids, np.arange(len(ids)))
    pieces = measure.label(phantom.labels, background=0, connectivity=1)
    assert pieces.max() == ids[-1]


def test_membrane_separates_cells_within_a_section(phantom):
    """Two different ids never touch side by side: label 0 lies between them."""
    for axis in (1, 2):
        ahead = np.moveaxis(phantom.labels, axis, 0)[1:]
        behind = np.moveaxis(phantom.labels, axis, 0)[:-1]
        touching = (ahead != behind) & (ahead > 0) & (behind > 0)
        assert not touching.any()


def test_membrane_fills_a_realistic_fraction_of_the_tissue():
    fractions = [(make_phantom((6, 192, 192), seed=seed).labels == 0).mean() for seed in range(3)]
    assert min(fractions) > 0.13
    assert max(fractions) < 0.32
    assert 0.15 < np.mean(fractions) < 0.30


def test_membrane_is_about_as_thick_wherever_it_crosses_the_section(phantom):
    """Half the thickness at the ridge of the distance map: 13.5 nm and its variation, in voxels of 6."""
    membrane = phantom.labels[6] == 0
    depth = ndimage.distance_transform_edt(membrane)
    ridge = membrane & (depth == ndimage.maximum_filter(depth, 5))
    assert 1.0 <= np.median(depth[ridge]) <= 3.5


def test_cells_continue_from_section_to_section(phantom):
    for here, after in zip(phantom.labels[:-1], phantom.labels[1:], strict=True):
        inside = (here > 0) & (after > 0)
        assert inside.mean() > 0.5
        assert (here == after)[inside].mean() > 0.9


def test_cells_change_shape_along_z(phantom):
    assert (phantom.labels[0] != phantom.labels[1]).mean() > 0.02
    assert (phantom.labels[0] != phantom.labels[-1]).mean() > (phantom.labels[0] != phantom.labels[1]).mean()


def test_cells_are_of_very_different_sizes(phantom):
    sizes = np.bincount(phantom.labels.ravel())[1:]
    assert len(sizes) > 30
    assert np.percentile(sizes, 95) > 10 * np.percentile(sizes, 25)


def test_membrane_is_darker_than_cytoplasm_on_every_section(phantom, cytoplasm):
    for raw, labels, inside in zip(phantom.raw, phantom.labels, cytoplasm, strict=True):
        assert raw[labels == 0].mean() + 25 < raw[inside].mean()


def test_dark_organelles_inside_cells_mislead_a_threshold(phantom, cytoplasm):
    smooth = ndimage.gaussian_filter(phantom.raw.astype(np.float32), (0, 1, 1))
    limit = np.median(smooth[phantom.labels == 0], keepdims=True)
    dark = cytoplasm & (smooth < limit)
    assert dark.sum() > 0.005 * cytoplasm.sum()


def test_organelles_are_bodies_rather_than_noise(phantom, cytoplasm):
    """Something like a mitochondrion: a dark blob a hundred nanometres across, inside one cell."""
    smooth = ndimage.gaussian_filter(phantom.raw.astype(np.float32), (0, 2.5, 2.5))
    typical = np.array([np.median(s[i]) for s, i in zip(smooth, cytoplasm, strict=True)]).reshape(-1, 1, 1)
    blobs, _ = ndimage.label(cytoplasm & (smooth < typical - 35))
    assert np.bincount(blobs.ravel())[1:].max() > 300


def test_sections_differ_in_brightness_and_contrast(phantom, cytoplasm):
    brightness = [raw[inside].mean() for raw, inside in zip(phantom.raw, cytoplasm, strict=True)]
    contrast = [raw.std() for raw in phantom.raw]
    assert np.std(brightness) > 4
    assert np.std(contrast) > 1


def test_illumination_is_uneven_within_a_section(phantom, cytoplasm):
    left, right = cytoplasm.copy(), cytoplasm.copy()
    left[..., 112:], right[..., :112] = False, False
    tilts = [
        raw[a].mean() - raw[b].mean() for raw, a, b in zip(phantom.raw, left, right, strict=True) if a.any() and b.any()
    ]
    assert np.std(tilts) > 2


def test_raw_uses_the_grey_range_without_clipping(phantom):
    assert np.mean((phantom.raw == 0) | (phantom.raw == 255)) < 0.02
    assert phantom.raw.std() > 25


def test_phantom_is_frozen(phantom):
    assert isinstance(phantom, Phantom)
    with pytest.raises(AttributeError):
        phantom.raw = None  # type: ignore[misc,assignment]  # what must not work


@pytest.mark.parametrize(
    ("shape", "named"),
    [
        ((1, 31, 32), "(1, 31, 32)"),
        ((0, 64, 64), "(0, 64, 64)"),
        ((64, 64), "(64, 64)"),
        ((4, 64, 64, 64), "(4, 64, 64, 64)"),
        ((4, 64.0, 64), "64.0"),
        ((100, 10_000, 10_000), "generate several"),
        ((1, 20_000, 20_000), "generate several"),
    ],
)
def test_bad_shapes_are_refused_in_one_line(shape, named):
    with pytest.raises(ConfigError) as refusal:
        make_phantom(shape, seed=0)
    assert named in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("seed", [-1, 1.5, None])
def test_bad_seeds_are_refused(seed):
    with pytest.raises(ConfigError, match=r"seed .*; give"):
        make_phantom((1, 32, 32), seed=seed)


@pytest.mark.parametrize("voxel_nm", [(30, 6), (0, 6, 6), (30, 6, 500), (float("nan"), 6, 6)])
def test_bad_voxel_sizes_are_refused(voxel_nm):
    with pytest.raises(ConfigError, match=r"voxel size .*; give"):
        make_phantom((1, 32, 32), seed=0, voxel_nm=voxel_nm)
