"""Derives reach, stride, margin and input sizes of a network from its module graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from volseg.blocks import Footprint
from volseg.errors import ModelError
from volseg.models.receptive_field import AxisGraph, channels_in, dimensions
from volseg.models.window import SizeError

if TYPE_CHECKING:
    from torch import nn

_MAX_STRIDE = 1 << 8
_MAX_INPUT = 4096
"""Upper limit of the search for the smallest input."""


def network_footprint(network: nn.Module) -> Footprint:
    """Derive the footprint of a network.

    A 2-D network that takes neighbouring sections as channels loses half of them on each side along z, like an unpadded
    one.

    Raises:
        ModelError: a layer of unknown reach, input sizes without a common rule, or an unsupported number of input
            channels.
    """
    flat = dimensions(network) == 2
    if not flat and channels_in(network) != 1:
        raise ModelError(f"a 3-D network must have one input channel, not {channels_in(network)}")
    axes = [_axis_footprint(AxisGraph(network, axis)) for axis in range(dimensions(network))]
    z, y, x = [_sections_footprint(channels_in(network)), *axes] if flat else axes
    return Footprint(
        reach_before=(z[0], y[0], x[0]),
        reach_after=(z[1], y[1], x[1]),
        stride=(z[2], y[2], x[2]),
        margin=(z[3], y[3], x[3]),
        smallest=(z[4], y[4], x[4]),
        context=(z[5], y[5], x[5]),
        dimensions=2 if flat else 3,
    )


def _sections_footprint(sections: int) -> tuple[int, int, int, int, int, int]:
    if sections % 2 == 0:
        raise ModelError(f"a network of {sections} sections as channels has no middle section; use 1, 3, 5 ..")
    half = sections // 2
    return half, half, 1, half, sections, half


def _axis_footprint(graph: AxisGraph) -> tuple[int, int, int, int, int, int]:
    """Reach before and after, stride, margin, smallest size and context along one axis."""
    stride = graph.stride()
    if stride > _MAX_STRIDE:
        raise ModelError(f"this network has a stride of {stride}, above {_MAX_STRIDE}; use fewer or smaller poolings")
    smallest = next((n for n in range(1, _MAX_INPUT) if _output_size(graph, n)), None)
    if smallest is None:
        raise ModelError(f"this network accepts no input of up to {_MAX_INPUT} voxels")
    lost = smallest - (_output_size(graph, smallest) or 0)
    # So large that the reach of a middle voxel is inside; positions are only numbers here, so size costs nothing.
    length = smallest + stride * 4096
    if lost < 0 or lost % 2 or _output_size(graph, length) != length - lost:
        raise ModelError(f"this network maps {smallest} voxels to {smallest - lost}: no margin fits all sizes")
    margin = lost // 2
    middle = stride * 2048
    ranges = [graph.demand(middle + phase, length) for phase in range(stride)]
    at = middle + margin
    before = [at + phase - first for phase, (first, _) in enumerate(ranges)]
    after = [last - (at + phase) for phase, (_, last) in enumerate(ranges)]
    if not margin and smallest % stride:
        # Input and cores end at different phases, so the cores of a flipped tile may start at any phase.
        return max(before), max(after), stride, margin, smallest, max(*before, *after)
    # A core starts at phase 0 and ends at the last phase: other voxels reach further, but are further inside.
    beyond_start = max(reach - phase for phase, reach in enumerate(before))
    beyond_end = max(reach - (stride - 1 - phase) for phase, reach in enumerate(after))
    return max(before), max(after), stride, margin, smallest, max(beyond_start, beyond_end)


def _output_size(graph: AxisGraph, length: int) -> int | None:
    try:
        return graph.sizes(length)[graph.nodes[-1]]
    except SizeError:
        return None
