"""How voxels become colours, in Neuroglancer's shader language; each `#uicontrol` is a control beside the picture."""

from __future__ import annotations

import json

import numpy as np

_MEMBRANE = """\
#uicontrol float threshold slider(min=0, max=1, step=0.01, default=0.5)
#uicontrol vec3 color color(default="COLOUR")
void main() {
  float probability = toNormalized(getDataValue());
  if (probability < threshold || probability == 0.0) {
    emitTransparent();
  } else {
    emitRGBA(vec4(color, probability));
  }
}
"""
_UNCERTAINTY = """\
#uicontrol invlerp spread(range=[0, 127], window=[0, 255])
void main() {
  float value = spread();
  emitRGB(vec3(min(1.0, 2.0 * value), value, max(0.0, 2.0 * value - 1.0)));
}
"""
_AFFINITY = """\
#uicontrol vec3 color color(default="COLOUR")
void main() {
  emitRGB(color * toNormalized(getDataValue()));
}
"""
_COLOURS = ("#ff5a1f", "#00b7ff", "#ffd500", "#d24dff")
_PRIMARIES = ("#ff0000", "#00ff00", "#0000ff")


def membrane_shader(number: int) -> str:
    """Membranes: one colour over the raw, the denser the likelier, and nothing below the threshold.

    Args:
        number: which membrane map of the viewer it is; the first four have colours of their own.
    """
    return _MEMBRANE.replace("COLOUR", _COLOURS[number % len(_COLOURS)])


def affinity_shader(channel: int) -> str:
    """One of three affinities whose colours add up: white where all hold, and a colour is missing where its does not.

    Args:
        channel: which of the affinities it is.
    """
    return _AFFINITY.replace("COLOUR", _PRIMARIES[channel % len(_PRIMARIES)])


def uncertainty_shader() -> str:
    """Standard deviations, from black through orange to white, which is 0.5: no probability spreads further."""
    return _UNCERTAINTY


def raw_shader(grey: tuple[float, float] | None, dtype: str) -> str:
    """Raw EM in grey, with a control for the contrast.

    Args:
        grey: the values drawn black and white; None for the whole range of the type.
        dtype: the type of a voxel.
    """
    stated = "" if grey is None else f"(range={json.dumps(grey)}, window={json.dumps(_window(grey, dtype))})"
    return f"#uicontrol invlerp contrast{stated}\nvoid main() {{\n  emitGrayscale(contrast());\n}}\n"


def _window(grey: tuple[float, float], dtype: str) -> tuple[float, float]:
    """The span of the control: half of the range is left on either side, as far as the type has values.

    Neuroglancer refuses whole control and shader where the span goes further.

    >>> _window((60, 180), "uint8"), _window((60, 240), "uint8"), _window((-1.0, 1.0), "float32")
    ((0, 240), (0, 255), (-2.0, 2.0))
    """
    low, high = grey
    room = (high - low) / 2
    if np.dtype(dtype).kind == "f":
        return low - room, high + room
    values = np.iinfo(dtype)
    return max(int(low - room), int(values.min)), min(int(high + room), int(values.max))
