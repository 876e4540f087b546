"""Neuroglancer shaders, from voxels to colours; each `#uicontrol` is a control in the side panel."""

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
    """Draw membranes in one colour, opacity by probability, transparent below the threshold.

    Args:
        number: index of the membrane map in the viewer; the first four have different colours.
    """
    return _MEMBRANE.replace("COLOUR", _COLOURS[number % len(_COLOURS)])


def affinity_shader(channel: int) -> str:
    """Draw one affinity in red, green or blue; the three add up, to white where all are 1.

    Args:
        channel: index of the affinity.
    """
    return _AFFINITY.replace("COLOUR", _PRIMARIES[channel % len(_PRIMARIES)])


def uncertainty_shader() -> str:
    """Draw standard deviations from black through orange to white, which is 0.5, the maximum for probabilities."""
    return _UNCERTAINTY


def raw_shader(grey: tuple[float, float] | None, dtype: str) -> str:
    """Draw raw EM in grey, with a control for the contrast.

    Args:
        grey: values drawn black and white; None for the full range of the data type.
        dtype: data type of the voxels.
    """
    arguments = "" if grey is None else f"(range={json.dumps(grey)}, window={json.dumps(_window(grey, dtype))})"
    return f"#uicontrol invlerp contrast{arguments}\nvoid main() {{\n  emitGrayscale(contrast());\n}}\n"


def _window(grey: tuple[float, float], dtype: str) -> tuple[float, float]:
    """Return the window of the contrast control: the range and half of it on either side, within the data type.

    Neuroglancer rejects a control, and its shader, with a window beyond the data type.

    >>> _window((60, 180), "uint8"), _window((60, 240), "uint8"), _window((-1.0, 1.0), "float32")
    ((0, 240), (0, 255), (-2.0, 2.0))
    """
    low, high = grey
    margin = (high - low) / 2
    if np.dtype(dtype).kind == "f":
        return low - margin, high + margin
    limits = np.iinfo(dtype)
    return max(int(low - margin), int(limits.min)), min(int(high + margin), int(limits.max))
