"""The plan refuses sizes that do not fit, and names sizes that do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg.blocks import Box, Footprint
from volseg.errors import ConfigError, GridError, ModelError
from volseg.models.compatibility import refuse_dtype_mismatch, refuse_uneven_rotation, refuse_voxel_size_mismatch
from volseg.ops import Normalization
from volseg.pipeline import PlanRequest, plan_run

FUSIONNET = Footprint((0, 245, 245), (0, 245, 245), (1, 16, 16), (0, 0, 0), (1, 16, 16), (0, 235, 235))
UNET = Footprint((0, 107, 107), (0, 107, 107), (1, 16, 16), (0, 92, 92), (1, 188, 188), (0, 96, 96))


@given(
    st.tuples(*[st.integers(1, 5000)] * 3), st.tuples(*[st.integers(1, 200)] * 3), st.sampled_from([FUSIONNET, UNET])
)
def test_default_sizes_always_fit(shape: tuple, chunk: tuple, footprint: Footprint) -> None:
    plan = plan_run(shape, chunk, (footprint,), PlanRequest())
    for block, shard, inner, stride in zip(plan.grid.block, plan.shard, plan.chunk, footprint.stride, strict=True):
        assert block % stride == 0
        assert block % shard == 0
        assert shard % inner == 0
    assert plan.halo == footprint.exact_halo()
    assert not plan.warnings
    for tiling in list(plan.tilings())[:6]:
        assert all(n >= s for n, s in zip(tiling.input_shape, footprint.smallest, strict=True))


def test_tiles_go_from_the_whole_block_to_small_ones() -> None:
    plan = plan_run((32, 2000, 2000), (16, 128, 128), (FUSIONNET,), PlanRequest(block=(16, 512, 1024)))
    cores = [tiling.core for tiling in plan.tilings()]
    assert cores[0] == (1, 512, 1024)
    assert cores[1] == (1, 256, 512)
    assert cores[-1] == (1, 16, 16)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (PlanRequest(block=(16, 500, 512)), r"block \(16, 500, 512\) .* use --block 16,512,512"),
        (PlanRequest(block=(16, 512, 0)), "at least one voxel"),
        (PlanRequest(block=(16, 512, 512), shard=(16, 192, 512)), "is not made of whole shards"),
        (PlanRequest(block=(16, 512, 512), chunk=(16, 100, 512)), "chunk .* does not divide the shard"),
        (PlanRequest(halo=(0, 17, 16)), r"halo \(0, 17, 16\) .* use --halo 0,32,16"),
        (PlanRequest(region=Box((0, 0, 0), (40, 10, 10))), r"0:40,0:10,0:10 .* volume of shape \(32, 2000, 2000\)"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_sizes_that_do(request_: PlanRequest, message: str) -> None:
    with pytest.raises(GridError, match=message):
        plan_run((32, 2000, 2000), (16, 128, 128), (FUSIONNET,), request_)


def test_a_halo_below_the_reach_runs_with_one_warning() -> None:
    plan = plan_run((32, 2000, 2000), (16, 128, 128), (FUSIONNET,), PlanRequest(halo=(0, 64, 64)))
    assert plan.halo == (0, 64, 64)
    assert len(plan.warnings) == 1
    assert "(0, 240, 240)" in plan.warnings[0]


def test_a_halo_below_an_unpadded_networks_margin_is_refused() -> None:
    with pytest.raises(GridError, match="below the margin"):
        plan_run((32, 2000, 2000), (16, 128, 128), (UNET,), PlanRequest(halo=(0, 64, 64)))


def test_a_region_that_grows_is_a_warning() -> None:
    request = PlanRequest(block=(16, 512, 512), region=Box((3, 600, 600), (5, 700, 700)))
    plan = plan_run((32, 2000, 2000), (16, 128, 128), (FUSIONNET,), request)
    assert plan.grid.region == Box((0, 512, 512), (16, 1024, 1024))
    assert plan.warnings == (
        "region 3:5,600:700,600:700 grows to 0:16,512:1024,512:1024: blocks write whole shards of (16, 512, 512)",
    )


def test_another_voxel_size_is_refused_along_the_axes_that_the_network_sees() -> None:
    refuse_voxel_size_mismatch((30.0, 4.1, 4.0), (50.0, 4.0, 4.0), FUSIONNET)
    refuse_voxel_size_mismatch(None, (50.0, 4.0, 4.0), FUSIONNET)
    with pytest.raises(ModelError, match="30 x 6 x 6 nm, the model was trained on 50 x 4 x 4 nm.*--ignore-voxel-size"):
        refuse_voxel_size_mismatch((30.0, 6.0, 6.0), (50.0, 4.0, 4.0), FUSIONNET)


def test_fixed_constants_hold_only_for_the_data_type_of_the_training() -> None:
    refuse_dtype_mismatch("uint16", Normalization("section", (1.0, 1.0), "uint8"))
    with pytest.raises(ModelError, match="holds uint16, but this model's fixed normalisation was made for uint8"):
        refuse_dtype_mismatch("uint16", Normalization("fixed", (1.0, 1.0), "uint8"))


def test_a_level_with_the_right_voxel_size_is_named_if_the_voxels_differ() -> None:
    fine, fitting = (30.0, 3.0, 3.0), (30.0, 6.0, 6.0)
    with pytest.raises(
        ModelError, match="30 x 3 x 3 nm, .* on 30 x 6 x 6 nm .*use --scale-level 1, .*or give --ignore"
    ):
        refuse_voxel_size_mismatch(fine, fitting, FUSIONNET, (fine, fitting))
    with pytest.raises(ModelError, match="use a model trained for this size or another --scale-level"):
        refuse_voxel_size_mismatch(fine, fitting, FUSIONNET, (fine, None))
    refuse_voxel_size_mismatch((30.0, 6.5, 5.5), fitting, FUSIONNET)
    refuse_voxel_size_mismatch((99.0, 6.0, 6.0), fitting, FUSIONNET)  # it does not look along z


def test_a_network_that_treats_y_and_x_differently_is_not_rotated() -> None:
    refuse_uneven_rotation(FUSIONNET)
    with pytest.raises(ConfigError, match=r"stride differs along y and x \(16, 32\); use --orientations flips"):
        refuse_uneven_rotation(replace(FUSIONNET, stride=(1, 16, 32)))


def test_networks_of_different_strides_share_blocks_but_not_tiles() -> None:
    other = replace(FUSIONNET, stride=(1, 24, 24), smallest=(1, 24, 24), context=(0, 40, 40))
    plan = plan_run((32, 2000, 2000), (16, 128, 128), (FUSIONNET, other), PlanRequest())
    assert all(b % 48 == 0 for b in plan.grid.block[1:])
    assert plan.halos == (FUSIONNET.exact_halo(), (0, 48, 48))
    assert plan.halo == FUSIONNET.exact_halo()
    assert next(plan.tilings(1)).halo == (0, 48, 48)


def test_a_network_of_several_input_sections_has_one_halo_along_z() -> None:
    three = replace(
        FUSIONNET, reach_before=(1, 245, 245), reach_after=(1, 245, 245), margin=(1, 0, 0), smallest=(3, 16, 16)
    )
    assert three.validate_halo((1, 32, 32)) == (1, 32, 32)
    for halo in [(0, 32, 32), (2, 32, 32), (3, 32, 32)]:
        with pytest.raises(GridError, match="takes 3 sections as its channels; use --halo 1,32,32"):
            three.validate_halo(halo)
    with pytest.raises(GridError, match="use --halo auto or exact"):
        plan_run((32, 2000, 2000), (16, 128, 128), (three, FUSIONNET), PlanRequest(halo=(1, 32, 32)))


def test_a_block_of_a_3d_network_is_at_least_as_deep_as_its_halo_on_both_sides() -> None:
    deep = replace(
        FUSIONNET, dimensions=3, reach_before=(60, 245, 245), reach_after=(60, 245, 245), context=(60, 235, 235)
    )
    plan = plan_run((500, 2000, 2000), (16, 128, 128), (deep,), PlanRequest())
    assert plan.grid.block[0] >= 112
    overheads = [tiling.overhead for tiling in plan.tilings()]
    assert overheads == sorted(overheads)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 10, 10), (1, 100, 3)])
def test_a_volume_smaller_than_the_stride_has_a_tile(shape: tuple) -> None:
    plan = plan_run(shape, (1, 8, 8), (FUSIONNET,), PlanRequest())
    assert next(plan.tilings()).core[2] == 16
