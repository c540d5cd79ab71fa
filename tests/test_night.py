"""A figure in a dark page: its paper is the page, its colours are seen and keep their hue, its photographs stay."""

import base64
import hashlib
import io
import re
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import night
import numpy as np
import pytest
import torch
from docutils import nodes
from IPython.core.pylabtools import retina_figure
from PIL import Image

from scorebook import lab
from scorebook.lab.plots import photographs

INK, PAPER = "#22303c", "#ffffff"


@pytest.fixture(autouse=True)
def _leave_no_figure_and_no_style():
    with plt.rc_context():
        lab.use_style()
        yield
    plt.close("all")


def rgb(name):
    return np.array(plt.matplotlib.colors.to_rgb(name))


def contrast(a, b):
    """WCAG's ratio of two colours."""

    def luminance(c):
        return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    dark, light = sorted([luminance(a), luminance(b)])
    return (light + 0.05) / (dark + 0.05)


def hue(color):
    _, a, b = night.lab_of(color)
    return np.arctan2(b, a)


def test_the_way_to_lightness_and_back_is_the_identity():
    colors = np.random.default_rng(0).random((500, 3))
    np.testing.assert_allclose(night.rgb_of(night.lab_of(colors)), colors, atol=1e-6)
    np.testing.assert_allclose(night.lab_of(np.ones(3)), [1, 0, 0], atol=1e-6)


def test_paper_becomes_the_dark_page_and_ink_is_read_on_it(root):
    page = np.array(night.PAGE) / 255
    css = (root / "book" / "_static" / "scorebook.css").read_text(encoding="utf-8")
    dark = re.search(r'html\[data-theme="dark"\] \{.*?--pst-color-background: (#\w+);', css, re.DOTALL)[1]
    np.testing.assert_allclose(rgb(dark), page)
    np.testing.assert_allclose(night.turned(rgb(PAPER)), page, atol=1e-3)
    assert contrast(night.turned(rgb(INK)), page) >= 7
    assert contrast(night.turned(rgb("black")), page) >= 12


def test_every_colour_of_the_style_is_seen_on_the_dark_page_and_keeps_its_hue():
    page = np.array(night.PAGE) / 255
    colors = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    assert len(colors) >= 6
    for color in colors:
        dark = night.turned(rgb(color))
        assert contrast(dark, page) >= 4.5, color
        if np.linalg.norm(night.lab_of(rgb(color))[1:]) > 0.05:
            assert abs(np.angle(np.exp(1j * (hue(dark) - hue(rgb(color)))))) < 0.3, color


def test_a_darker_blue_of_a_density_is_a_lighter_one_in_the_dark():
    axes = lab.density(lambda x: -(x**2).sum(1), extent=(-3, 3, -3, 3), resolution=30)
    blues = axes.images[0].cmap(np.linspace(0, 1, 30))[:, :3]
    lightness = night.lab_of(night.turned(blues))[:, 0]
    assert (np.diff(lightness) > 0).all()


def drawing():
    images = torch.linspace(-1, 1, 6)[:, None, None, None].expand(6, 1, 4, 4)
    figure, (left, right) = plt.subplots(1, 2, figsize=(6, 3))
    lab.image_grid(images, n_cols=3, ax=left)
    left.set_title("six images")
    right.plot([0, 1], [1, 0])
    return figure, images[:, 0, 0, 0]


def test_a_figure_tells_where_its_photographs_are_in_the_picture_that_is_shown():
    figure, values = drawing()
    data, _ = retina_figure(figure)
    picture = Image.open(io.BytesIO(data)).convert("L")
    places = photographs(figure)
    assert len(places) == 6
    for place, value in zip(places, values, strict=True):
        left, top, right, bottom = (share * side for share, side in zip(place, 2 * picture.size, strict=True))
        inside = np.asarray(picture.crop((round(left) + 2, round(top) + 2, round(right) - 2, round(bottom) - 2)))
        assert inside.size > 100
        assert np.abs(inside / 255 - (value.item() + 1) / 2).max() < 0.01
    plain, axes = plt.subplots()
    axes.plot([0, 1])
    plain.canvas.draw()
    assert photographs(plain) == []


def test_photographs_stay_and_the_rest_turns():
    figure, _ = drawing()
    data, _ = retina_figure(figure)
    picture = Image.open(io.BytesIO(data))
    places = photographs(figure)
    dark = np.asarray(night.night(picture, places))
    light = np.asarray(picture.convert("RGB"))
    height, width = dark.shape[:2]
    for left, top, right, bottom in places:
        row, column = round((top + bottom) / 2 * height), round((left + right) / 2 * width)
        assert (dark[row, column] == light[row, column]).all()
    assert (light[0, 0] == 255).all()
    assert np.abs(dark[0, 0].astype(int) - night.PAGE).max() <= 1
    # Between two photographs is paper.
    between = round((places[0][2] + places[1][0]) / 2 * width)
    assert np.abs(dark[round((places[0][1] + 0.01) * height), between].astype(int) - night.PAGE).max() <= 1
    assert np.abs(np.asarray(night.night(picture))[:5].astype(int) - night.PAGE).max() <= 1


def test_a_notebook_shows_a_figure_with_the_places_of_its_photographs(monkeypatch):
    formats = {}
    formatter = SimpleNamespace(for_type=lambda kind, show: formats.update({kind: show}))
    monkeypatch.setattr("matplotlib_inline.backend_inline.set_matplotlib_formats", lambda name: formats.update(f=name))
    shell = SimpleNamespace(kernel=True, display_formatter=SimpleNamespace(formatters={"image/png": formatter}))
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    lab.use_style()
    figure, _ = drawing()
    data, told = formats[plt.Figure](figure)
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert formats["f"] == "retina"
    assert (told["width"], told["height"]) == (picture.width // 2, picture.height // 2)
    assert told["photographs"] == photographs(figure)
    assert formats[plt.Figure](plt.figure()) is None


def test_each_picture_of_a_page_gets_one_for_the_dark(tmp_path, monkeypatch):
    figure, _ = drawing()
    data, _ = retina_figure(figure)
    name = hashlib.sha256(data).hexdigest()
    (tmp_path / f"{name}.png").write_bytes(data)
    there = {"image/png": {"photographs": photographs(figure)}}
    output = nbformat.v4.new_output("display_data", {"image/png": base64.b64encode(data).decode()}, metadata=there)
    run = SimpleNamespace(cells=[nbformat.v4.new_code_cell("draw()", outputs=[output])])
    monkeypatch.setattr(night, "run_of", lambda app, page: run)
    document = nodes.container("", nodes.image(uri=f"{name}.png", alt="six images"), nodes.image(uri="other.png"))
    settings = SimpleNamespace(env=SimpleNamespace(app=SimpleNamespace(srcdir=tmp_path), docname="page"))
    document.settings, document.reporter = settings, None
    document.settings.language_code = "en"
    monkeypatch.setattr(night.Nights, "__init__", lambda self, document: setattr(self, "document", document))
    monkeypatch.setattr(night.Nights, "app", settings.env.app, raising=False)
    monkeypatch.setattr(night.Nights, "env", settings.env, raising=False)
    night.Nights(document).apply()
    light, dark, other = document
    assert (light["classes"], dark["classes"], other["classes"]) == (["only-light"], ["only-dark"], [])
    assert dark["alt"] == "six images"
    assert dark["loading"] == "lazy"
    made = np.asarray(Image.open(tmp_path / dark["uri"]))
    assert (made == np.asarray(night.night(Image.open(tmp_path / f"{name}.png"), photographs(figure)))).all()
