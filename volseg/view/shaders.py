"""How voxels become colours, in Neuroglancer's shader language; each `#uicontrol` is a control beside the picture."""

from __future__ import annotations

import json

MEMBRANE = """\
#uicontrol float threshold slider(min=0, max=1, step=0.01, default=0.5)
#uicontrol vec3 color color(default="#ff5a1f")
void main() {
  float probability = toNormalized(getDataValue());
  if (probability < threshold || probability == 0.0) {
    emitTransparent();
  } else {
    emitRGBA(vec4(color, probability));
  }
}
"""
"""Membranes: one colour over the raw, the denser the likelier, and nothing below the threshold."""


def raw_shader(grey: tuple[float, float] | None) -> str:
    """Raw EM in grey, with a control for the contrast.

    Args:
        grey: the values drawn black and white; None for the whole range of the type.
    """
    stated = "" if grey is None else f"(range={json.dumps(grey)}, window={json.dumps(_window(grey))})"
    return f"#uicontrol invlerp contrast{stated}\nvoid main() {{\n  emitGrayscale(contrast());\n}}\n"


def _window(grey: tuple[float, float]) -> tuple[float, float]:
    """The span of the control: half of the range is left on either side, and whole numbers stay whole.

    >>> _window((60, 180)), _window((-1.0, 1.0)), _window((20, 200))
    ((0, 240), (-2.0, 2.0), (0, 290))
    """
    low, high = grey
    room = (high - low) / 2
    if isinstance(low, int):
        room = int(room)
    return (max(low - room, 0) if low >= 0 else low - room), high + room
