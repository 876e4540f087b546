from __future__ import annotations

from volseg.view.shaders import affinity_shader, membrane_shader, raw_shader, uncertainty_shader


def test_membranes_have_a_threshold_slider_and_a_colour():
    shader = membrane_shader(0)
    assert "#uicontrol float threshold slider(min=0, max=1" in shader
    assert "#uicontrol vec3 color color(" in shader


def test_two_membrane_maps_differ_in_colour():
    assert membrane_shader(0) != membrane_shader(1)
    assert membrane_shader(0) == membrane_shader(4)


def test_the_colours_of_three_affinities_add_up_to_white():
    colours = [affinity_shader(channel).partition('default="')[2][:7] for channel in range(4)]
    assert colours == ["#ff0000", "#00ff00", "#0000ff", "#ff0000"]


def test_uncertainty_has_a_range_up_to_half_and_no_threshold():
    assert "range=[0, 127]" in uncertainty_shader()
    assert "threshold" not in uncertainty_shader()


def test_the_contrast_control_stays_within_the_type():
    assert "(range=[20, 240], window=[0, 255])" in raw_shader((20, 240), "uint8")
    assert "(range=[-100, 100], window=[-200, 200])" in raw_shader((-100, 100), "int16")
    assert "#uicontrol invlerp contrast\n" in raw_shader(None, "uint8")
