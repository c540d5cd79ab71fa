"""An explorer holds one frame per value, and its controls reach the frames without Python where they can."""

import base64
import io
import re

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from ipywidgets.embed import dependency_state
from PIL import Image, features

from scorebook import lab

STACKED = pytest.mark.skipif(not hasattr(ipywidgets, "Stack"), reason="the slider of ipywidgets 7 calls Python instead")


def draw(value):
    figure, ax = plt.subplots(figsize=(3, 2))
    ax.set_facecolor((value, 0.5, 1 - value))
    ax.set_position([0, 0, 1, 1])
    return figure


def parts(widget):
    controls, screen = widget.children
    play, slider = controls.children
    return play, slider, screen


def frame(page):
    attributes = dict(re.findall(r'(\w+)="([^"]*)"', page))
    kind, data = attributes["src"].removeprefix("data:image/").split(";base64,")
    return attributes, kind, Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


@STACKED
@pytest.mark.parametrize(
    "values", [[0.0, 0.4, 0.8], (0.0, 0.4, 0.8), torch.tensor([0.0, 0.4, 0.8], requires_grad=True)]
)
def test_each_value_is_drawn_once_and_shown_in_order(values):
    seen = []

    def counted(value):
        seen.append(value)
        return draw(value)

    figures = plt.get_fignums()
    _, slider, screen = parts(lab.explorer(counted, values, "red", pixel_ratio=2))
    assert seen == pytest.approx([0.0, 0.4, 0.8])
    assert plt.get_fignums() == figures
    assert [name for name, _ in slider.options] == ["0", "0.4", "0.8"]
    for value, child in zip([0.0, 0.4, 0.8], screen.children, strict=True):
        attributes, _, picture = frame(child.value)
        assert picture.size == (600, 400)
        assert (attributes["width"], attributes["height"]) == ("300", "200")
        assert np.asarray(picture)[200, 300] == pytest.approx([255 * value, 127.5, 255 * (1 - value)], abs=6)


def links(widget):
    """Model ids of (source, attribute, target, attribute) for each link in the state that a page embeds."""
    state = dependency_state([widget], drop_defaults=False)
    return {
        (s.removeprefix("IPY_MODEL_"), a, t.removeprefix("IPY_MODEL_"), b)
        for model in state.values()
        if model["model_name"] == "LinkModel"
        for (s, a), (t, b) in [(model["state"]["source"], model["state"]["target"])]
    }


@STACKED
def test_play_moves_the_slider_and_the_slider_the_frames_inside_the_browser():
    widget = lab.explorer(draw, [0.1, 0.5, 0.9], "red", start=1, interval=150)
    play, slider, screen = parts(widget)
    assert links(widget) == {
        (play.model_id, "value", slider.model_id, "index"),
        (slider.model_id, "index", screen.model_id, "selected_index"),
    }
    assert (play.min, play.max, play.step, play.interval) == (0, 2, 1, 150)
    assert (play.value, slider.index, screen.selected_index) == (1, 1, 1)


def test_without_a_stack_the_slider_calls_python(monkeypatch):
    monkeypatch.delattr(ipywidgets, "Stack", raising=False)
    widget = lab.explorer(draw, [0.0, 1.0], "red")
    play, slider, screen = parts(widget)
    assert links(widget) == {(play.model_id, "value", slider.model_id, "index")}
    for index, red in [(1, 255), (0, 0)]:
        slider.index = index
        assert np.asarray(frame(screen.value)[2])[10, 10][0] == pytest.approx(red, abs=6)


@STACKED
def test_every_frame_says_what_it_shows():
    widget = lab.explorer(draw, [0.0, 1.0], "share of <red>", alt='A plain "sheet"')
    _, slider, screen = parts(widget)
    assert slider.description == "share of <red>"
    alts = [frame(child.value)[0]["alt"] for child in screen.children]
    assert alts == [f"A plain &quot;sheet&quot; (share of &lt;red&gt;: {v})" for v in (0, 1)]


@pytest.mark.parametrize(
    ("values", "format", "names"),
    [
        ([1, 10], "{:g}", ["1", "10"]),
        ([0.123, 0.5], "{:.2f}", ["0.12", "0.50"]),
        (["low", "high"], "{:g}", ["low", "high"]),
        ([0.25, 0.5], lambda v: f"{v:.0%}", ["25%", "50%"]),
        ([0.101, 0.102], "{:.1f}", ["0.1 (1)", "0.1 (2)"]),
        ([torch.tensor(2.0), np.float32(3.0)], "{:g}", ["2", "3"]),
    ],
)
def test_values_have_names(values, format, names):
    widget = lab.explorer(lambda value: plt.figure(figsize=(1, 1)), values, "v", format=format)
    assert [name for name, _ in parts(widget)[1].options] == names


@STACKED
def test_frames_are_small():
    def busy(value):
        figure, ax = plt.subplots(figsize=(7.2, 4))
        generator = torch.Generator().manual_seed(int(value))
        lab.samples(torch.randn(500, 2, generator=generator), ax)
        return figure

    _, kind, _ = frame(parts(lab.explorer(busy, [1], "seed"))[2].children[0].value)
    assert kind == ("webp" if features.check("webp") else "png")
    assert len(parts(lab.explorer(busy, [1], "seed"))[2].children[0].value) < 40_000 * 4 / 3


@STACKED
def test_without_webp_frames_are_png(monkeypatch):
    monkeypatch.setattr(features, "check", lambda name: False)
    _, kind, picture = frame(parts(lab.explorer(draw, [0.4], "red"))[2].children[0].value)
    assert kind == "png"
    assert np.asarray(picture)[10, 10] == pytest.approx([102, 127.5, 153], abs=6)


@STACKED
def test_a_cropping_style_does_not_change_the_size():
    with plt.rc_context({"savefig.bbox": "tight"}):
        screen = parts(lab.explorer(draw, [0.0], "red", pixel_ratio=1))[2]
    assert frame(screen.children[0].value)[2].size == (300, 200)


@pytest.mark.parametrize(
    ("arguments", "error", "complaint"),
    [
        ({"values": []}, ValueError, "values must hold at least one value"),
        ({"start": 2}, ValueError, "start must be an index into 2 values, got 2"),
        ({"interval": 0}, ValueError, "interval must be a positive integer"),
        ({"pixel_ratio": 0.0}, ValueError, "pixel_ratio must be positive"),
        ({"draw": lambda v: None}, TypeError, "draw must return a matplotlib Figure, got NoneType"),
        ({"draw": lambda v: plt.figure(figsize=(1 + v, 1))}, ValueError, "frames must have one size"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, complaint):
    with pytest.raises(error, match=complaint):
        lab.explorer(**{"draw": draw, "values": [0.0, 1.0], "label": "red"} | arguments)
    plt.close("all")
