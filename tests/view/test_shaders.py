from __future__ import annotations

from volseg.view.shaders import membrane_shader, raw_shader


def test_membranes_have_a_threshold_slider_and_a_colour():
    shader = membrane_shader(0)
    assert "#uicontrol float threshold slider(min=0, max=1" in shader
    assert "#uicontrol vec3 color color(" in shader


def test_two_membrane_maps_differ_in_colour():
    assert membrane_shader(0) != membrane_shader(1)
    assert membrane_shader(0) == membrane_shader(4)


def test_the_contrast_control_stays_within_the_type():
    assert "(range=[20, 240], window=[0, 255])" in raw_shader((20, 240), "uint8")
    assert "(range=[-100, 100], window=[-200, 200])" in raw_shader((-100, 100), "int16")
    assert "#uicontrol invlerp contrast\n" in raw_shader(None, "uint8")
