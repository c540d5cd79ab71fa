"""A figure in a dark page: its paper is the page, its colours are seen and keep their hue, its photographs stay."""

import base64
import hashlib
import io
import re
from itertools import pairwise
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import night
import numpy as np
import pytest
import torch
from docutils import nodes
from IPython.core.pylabtools import retina_figure
from night import contrast
from PIL import Image

from scorebook import lab
from scorebook.lab import _pages as pages
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


@pytest.mark.parametrize("off", [-1, 0, 1])
def test_a_photograph_ends_at_its_last_pixel_where_rounding_does_not(off):
    light = np.full((40, 60, 3), 255, dtype=np.uint8)
    light[10:30, 20:40] = np.linspace(0, 90, 20).astype(np.uint8)[:, None]
    places = [((20 + off) / 60, (10 + off) / 40, (40 - off) / 60, (30 - off) / 40)]
    dark = np.asarray(night.night(Image.fromarray(light), places)).astype(int)
    assert (dark[10:30, 20:40] == light[10:30, 20:40]).all()
    dark[10:30, 20:40] = night.PAGE
    assert np.abs(dark - night.PAGE).max() <= 1


def test_a_notebook_shows_a_figure_with_the_places_of_its_photographs(monkeypatch):
    formats = {}
    formatter = SimpleNamespace(for_type=lambda kind, show: formats.update({kind: show}))
    monkeypatch.setattr("matplotlib_inline.backend_inline.set_matplotlib_formats", lambda name: formats.update(f=name))
    shell = SimpleNamespace(kernel=True, display_formatter=SimpleNamespace(formatters={"image/png": formatter}))
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    monkeypatch.delenv("SCOREBOOK_PAGES", raising=False)
    lab.use_style()
    figure, _ = drawing()
    data, told = formats[plt.Figure](figure)
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert formats["f"] == "retina"
    assert (told["width"], told["height"]) == (picture.width // 2, picture.height // 2)
    assert np.abs(np.subtract(told["photographs"], photographs(figure))).max() < 0.02
    assert "narrow" not in told
    assert formats[plt.Figure](plt.figure()) is None
    monkeypatch.setenv("SCOREBOOK_PAGES", "1")
    again, told = formats[plt.Figure](figure)
    assert again == data
    narrow = Image.open(io.BytesIO(base64.b64decode(told["narrow"]["png"])))
    assert (told["narrow"]["width"], told["narrow"]["height"]) == (narrow.width // 2, narrow.height // 2)
    assert narrow.width < picture.width
    assert narrow.height > picture.height
    assert np.abs(np.subtract(told["narrow"]["photographs"], photographs(figure))).max() < 0.02
    assert told["narrow"]["photographs"] != told["photographs"]

    # Letters are a little wider at twice the pixels, and shift all that stands beside them.
    ax = lab.image_grid(-torch.ones(20, 1, 8, 8), n_cols=10)
    for row, name in enumerate(("a name", "another, longer name")):
        ax.text(-1.5, 9 * row + 4, name, ha="right", va="center")
    data, told = formats[plt.Figure](ax.figure)
    grey = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("L"))
    for left, top, right, bottom in told["photographs"]:
        inside = grey[round(top * len(grey)) + 1 : round(bottom * len(grey)) - 1]
        inside = inside[:, round(left * grey.shape[1]) + 1 : round(right * grey.shape[1]) - 1]
        assert inside.max() < 128
    plt.close(ax.figure)


def panels(figure):
    """Left, top, right, bottom of the axes of a drawn figure, in inches."""
    boxes = [ax.get_window_extent().transformed(figure.dpi_scale_trans.inverted()) for ax in figure.axes]
    return [(box.x0, -box.y1, box.x1, -box.y0) for box in boxes]


def test_on_a_phone_panels_stand_below_each_other_with_letters_of_the_same_size():
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.0), sharey=True)
    for ax in axes:
        ax.plot([0, 1], [1, 0])
        ax.set(xlabel="$x$", title="a title")
    axes[0].set_ylabel("height")
    figure.canvas.draw()
    before = pages.texts(figure)
    assert pages.stack(figure)
    assert pages.texts(figure) == before
    assert figure.get_figwidth() == pages.PHONE
    boxes = panels(figure)
    for above, below in pairwise(boxes):
        assert above[3] < below[1]
        assert above[0] == pytest.approx(below[0], abs=0.01)
    assert all(right - left > 0.7 * pages.PHONE for left, _, right, _ in boxes)
    # Each has the numbers and the name of the axis that was shared.
    assert [ax.get_ylabel() for ax in axes] == ["height"] * 3
    assert all(label.get_visible() for ax in axes for label in ax.get_yticklabels())
    assert not pages.stack(figure)


def test_on_a_phone_four_parts_of_the_plane_make_a_square_and_long_titles_are_broken():
    figure, axes = plt.subplots(1, 4, figsize=(11.5, 3.1))
    for ax in axes:
        lab.density(lambda x: -(x**2).sum(1), extent=(-3, 3, -3, 3), resolution=20, ax=ax)
        ax.set_title("a title that is far too long for half of a phone")
    figure.canvas.draw()
    assert pages.stack(figure)
    one, two, three, four = panels(figure)
    assert one[1] == pytest.approx(two[1], abs=0.01)
    assert one[0] == pytest.approx(three[0], abs=0.01)
    assert three[1] == pytest.approx(four[1], abs=0.01)
    assert one[2] < two[0]
    assert one[3] < three[1]
    for ax in axes:
        title = ax.title if ax.title.get_text() else ax._left_title
        assert "\n" in title.get_text()
        assert title.get_window_extent().x1 <= figure.bbox.x1 + 1


def test_a_figure_of_one_panel_becomes_narrow_and_keeps_its_letters():
    figure, ax = plt.subplots(figsize=(6.4, 3.4))
    ax.plot([0, 1])
    figure.canvas.draw()
    before = pages.texts(figure)
    assert pages.stack(figure)
    assert figure.get_figwidth() == pages.PHONE
    assert pages.texts(figure) == before


def test_a_label_in_a_faint_colour_is_shown_in_a_shade_that_is_read_on_paper_and_in_the_dark():
    figure, ax = plt.subplots()
    for k in range(7):
        ax.text(0.1, k / 7, f"curve {k}", color=f"C{k}")
    ax.text(0.5, 0.5, "on something dark", color="white")
    pages.make_legible(figure)
    figure.canvas.draw()
    white = rgb(PAPER)
    for text in ax.texts[:-1]:
        shown = rgb(text.get_color())
        assert contrast(shown, white) >= 4.5
        assert contrast(night.turned(shown), np.array(night.PAGE) / 255) >= 4.5
    assert [rgb(ax.texts[k].get_color()).tolist() for k in (0, 6)] == [rgb(f"C{k}").tolist() for k in (0, 6)]
    assert ax.texts[-1].get_color() == "white"
    assert pages.texts(figure)[0][0] == round(9.5 * 100 / 72, 1)


def test_each_picture_of_a_page_gets_one_for_the_dark(tmp_path, monkeypatch):
    figure, _ = drawing()
    data, _ = retina_figure(figure)
    name = hashlib.sha256(data).hexdigest()
    (tmp_path / f"{name}.png").write_bytes(data)
    there = {"photographs": photographs(figure)}
    narrow, _ = retina_figure(drawing()[0])
    there["narrow"] = {"png": base64.b64encode(narrow).decode(), "width": 400, "height": 300, "photographs": []}
    there = {"image/png": there}
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
    light, dark, small, small_dark, _ = document
    assert [image["classes"] for image in document] == [
        ["only-light", "on-wide-screens"],
        ["on-wide-screens", "only-dark"],
        ["on-narrow-screens", "only-light"],
        ["on-narrow-screens", "only-dark"],
        [],
    ]
    assert (tmp_path / small["uri"]).read_bytes() == narrow
    assert (small["width"], small_dark["width"]) == ("400", "400")
    assert {image["alt"] for image in (light, dark, small, small_dark)} == {"six images"}
    assert [image.get("loading") for image in document] == [None, "lazy", "lazy", "lazy", None]
    made = np.asarray(Image.open(tmp_path / dark["uri"]))
    assert (made == np.asarray(night.night(Image.open(tmp_path / f"{name}.png"), photographs(figure)))).all()
