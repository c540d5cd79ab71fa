"""A picture shows the function it is given: at the right place, in the right direction, unchanged."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from scorebook import lab

EXTENT = (-3.0, 5.0, -2.0, 2.0)
MEAN = torch.tensor([2.0, -1.0])


@pytest.fixture(autouse=True)
def _leave_no_figure_and_no_style():
    with plt.rc_context():
        yield
    plt.close("all")


def log_prob(x):
    return -((x - MEAN.to(x)) ** 2).sum(1) + 7.0


def score(x):
    return -2 * (x - MEAN.to(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_density_has_its_peak_where_the_law_has_it(dtype):
    def checked(x):
        assert x.dtype == dtype
        return log_prob(x)

    ax = lab.density(checked, extent=EXTENT, resolution=80, dtype=dtype)
    (image,) = ax.images
    values = np.asarray(image.get_array())
    row, column = np.unravel_index(values.argmax(), values.shape)
    assert image.origin == "lower"
    assert image.get_extent() == list(EXTENT) or tuple(image.get_extent()) == EXTENT
    assert EXTENT[0] + (column + 0.5) * 8 / 80 == pytest.approx(2.0, abs=0.06)
    assert EXTENT[2] + (row + 0.5) * 4 / 80 == pytest.approx(-1.0, abs=0.03)
    x = torch.tensor([EXTENT[0] + 10.5 * 0.1, EXTENT[2] + 60.5 * 0.05])
    relative = (log_prob(x[None]) - 7.0).exp().item() / np.exp(-(0.05**2 + 0.025**2))
    assert values[60, 10] == pytest.approx(relative, rel=1e-4)


def test_density_on_an_interval_is_the_curve_itself():
    normal = torch.distributions.Normal(0.5, 2.0)
    (line,) = lab.density(lambda x: normal.log_prob(x[:, 0]), extent=(-4, 4)).lines
    x, y = line.get_data()
    assert x[0] == -4
    assert x[-1] == 4
    np.testing.assert_allclose(y, normal.log_prob(torch.tensor(x)).exp(), rtol=1e-5)


def test_density_may_be_minus_infinity_but_not_nan():
    values = lab.density(lambda x: torch.where(x[:, 0] > 0, 0.0, -torch.inf), extent=EXTENT).images[0].get_array()
    assert set(np.unique(np.asarray(values))) == {0.0, 1.0}
    with pytest.raises(ValueError, match="log_prob must be a number everywhere, got NaN at"):
        lab.density(lambda x: x[:, 0].sqrt(), extent=EXTENT)


def test_arrows_point_along_the_score_and_saturate():
    ax = lab.score_field(score, extent=EXTENT, resolution=7, scale=2.0)
    (arrows,) = [c for c in ax.collections if hasattr(c, "U")]
    points = torch.tensor(arrows.XY).double()
    drawn = torch.tensor(np.stack([arrows.U, arrows.V], 1)).double()
    exact = score(points)
    spacing = 4 / 7
    norm = exact.norm(dim=1, keepdim=True)
    torch.testing.assert_close(drawn, 0.95 * spacing * exact / (norm**2 + 4.0).sqrt())
    assert drawn.norm(dim=1).max() <= spacing
    assert arrows.angles == "xy"
    assert arrows.scale == 1


def test_a_field_that_vanishes_is_drawn():
    lab.score_field(torch.zeros_like, extent=EXTENT)


def test_samples_are_drawn_where_they_are():
    x = torch.randn(50, 2, requires_grad=True)
    (dots,) = lab.samples(x).collections
    np.testing.assert_allclose(dots.get_offsets(), x.detach().numpy(), rtol=1e-6)


@pytest.mark.parametrize("shape", [(400,), (400, 1)])
def test_the_histogram_of_numbers_has_unit_area(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    (bars,) = lab.samples(x).patches
    outline = bars.get_xy()[: (len(bars.get_xy()) + 1) // 2 + 1]
    assert outline[:-1, 1] @ np.diff(outline[:, 0]) == pytest.approx(1.0, abs=1e-6)


def test_the_histogram_of_an_interval_shows_that_interval_and_what_lies_in_it():
    """Its bins fill the interval, and its area is that of the numbers inside."""
    ax = lab.samples(torch.tensor([-5.0, 0.25, 0.35, 0.45, 0.95, 7.0]), extent=(0.0, 1.0))
    assert ax.get_xlim() == (0.0, 1.0)
    across, up = ax.patches[0].get_xy().T
    assert (across.min(), across.max()) == pytest.approx((0.0, 1.0))
    assert up.max() == pytest.approx(10 / 4)  # one of four numbers, in a bin of a tenth


def test_paths_in_the_plane_keep_their_points_and_ends():
    path = torch.randn(6, 4, 2)
    lines, starts, ends = lab.trajectories(path).collections
    np.testing.assert_allclose(np.stack(lines.get_segments()), path.transpose(0, 1).numpy(), rtol=1e-6)
    np.testing.assert_allclose(starts.get_offsets(), path[0].numpy(), rtol=1e-6)
    np.testing.assert_allclose(ends.get_offsets(), path[-1].numpy(), rtol=1e-6)
    assert starts.get_facecolor()[0].tolist() == [1, 1, 1, 1]
    assert ends.get_facecolor()[0].tolist() == [*lines.get_color()[0].tolist()[:3], 1]


@pytest.mark.parametrize("event", [(), (1,)])
@pytest.mark.parametrize("times", [None, torch.linspace(1, 0, 6)])
def test_paths_of_numbers_run_over_time(event, times):
    path = torch.randn(6, 4, *event)
    (lines,) = lab.trajectories(path, times=times).collections
    segments = np.stack(lines.get_segments())
    np.testing.assert_allclose(segments[..., 1], path.reshape(6, 4).T.numpy(), rtol=1e-6)
    clock = np.arange(6) if times is None else times.numpy()
    np.testing.assert_allclose(segments[..., 0], np.broadcast_to(clock, (4, 6)), rtol=1e-6)


def test_images_stand_row_after_row_and_keep_their_values():
    images = torch.linspace(-1, 1, 5 * 6).reshape(5, 1, 2, 3)
    shown = np.asarray(lab.image_grid(images, n_cols=3, gap=1).images[0].get_array())
    assert shown.shape == (5, 11, 3)
    np.testing.assert_allclose(shown[:2, 4:7, 0], (images[1, 0] + 1) / 2, rtol=1e-6)
    np.testing.assert_allclose(shown[3:, :3, 2], (images[3, 0] + 1) / 2, rtol=1e-6)
    assert (shown[2] == 1).all()
    assert (shown[3:, 8:] == 1).all()


def test_colour_images_keep_their_channels_and_are_clipped():
    image = torch.tensor([3.0, 0.0, -3.0]).reshape(1, 3, 1, 1)
    shown = np.asarray(lab.image_grid(image).images[0].get_array())
    np.testing.assert_allclose(shown[0, 0], [1.0, 0.5, 0.0])


@pytest.mark.parametrize(
    "draw",
    [
        lambda ax: lab.density(log_prob, extent=EXTENT, ax=ax),
        lambda ax: lab.score_field(score, extent=EXTENT, ax=ax),
        lambda ax: lab.samples(torch.randn(9, 2), ax),
        lambda ax: lab.trajectories(torch.randn(3, 4, 2), ax),
        lambda ax: lab.image_grid(torch.zeros(2, 1, 8, 8), ax=ax),
    ],
)
def test_pictures_of_the_plane_draw_on_the_axes_given_to_true_scale(draw):
    _, ax = plt.subplots()
    assert draw(ax) is ax
    assert ax.get_aspect() == 1
    assert len(plt.get_fignums()) == 1
    assert draw(None).figure is not ax.figure


def test_what_lies_on_a_density_has_another_colour():
    ax = lab.density(log_prob, extent=EXTENT)
    (dots,) = lab.samples(torch.randn(9, 2), ax).collections
    assert tuple(dots.get_facecolor()[0, :3]) == pytest.approx(plt.matplotlib.colors.to_rgb("C1"))


@pytest.mark.parametrize(
    ("draw", "complaint"),
    [
        (lambda: lab.density(log_prob, extent=(0, 1, 2)), r"extent must be \(x0, x1\) or \(x0, x1, y0, y1\), got 3"),
        (lambda: lab.density(log_prob, extent=(1, 0, 0, 1)), "extent must be .* x0 < x1"),
        (lambda: lab.density(log_prob, extent=EXTENT, resolution=0), "resolution must be a positive integer"),
        (lambda: lab.density(score, extent=EXTENT, resolution=4), r"log_prob must return shape \(16,\)"),
        (lambda: lab.score_field(log_prob, extent=EXTENT, resolution=4), r"score must return shape \(16, 2\)"),
        (lambda: lab.score_field(score, extent=(0, 1)), "extent must be"),
        (lambda: lab.score_field(score, extent=EXTENT, scale=0.0), "scale must be positive"),
        (lambda: lab.score_field(lambda x: x / 0, extent=EXTENT), "score must be finite everywhere"),
        (lambda: lab.samples(torch.zeros(3, 3)), r"x must hold points, .* got \(3, 3\)"),
        (lambda: lab.samples(torch.zeros(0, 2)), r"x must hold points, .* got \(0, 2\)"),
        (lambda: lab.samples(torch.zeros(3, 2), extent=(0, 1)), "extent must be"),
        (lambda: lab.samples(torch.zeros(3, 2, device="meta")), "x must hold values to be drawn"),
        (lambda: lab.trajectories(torch.zeros(3)), r"path must have shape .* got \(3,\)"),
        (lambda: lab.trajectories(torch.zeros(3, 2), times=torch.zeros(2)), r"times must have shape \(3,\)"),
        (lambda: lab.trajectories(torch.zeros(3, 2, 2), times=torch.zeros(3)), "times must be None"),
        (lambda: lab.image_grid(torch.zeros(2, 8, 8)), r"images must have shape .* got \(2, 8, 8\)"),
        (lambda: lab.image_grid(torch.zeros(2, 1, 8, 8), n_cols=0), "n_cols must be a positive integer"),
        (lambda: lab.image_grid(torch.zeros(2, 1, 8, 8), gap=-1), "gap must be a non-negative integer"),
    ],
)
def test_wrong_arguments_are_named(draw, complaint):
    with pytest.raises(ValueError, match=complaint):
        draw()


def contrast(first, second):
    def luminance(color):
        rgb = np.asarray(plt.matplotlib.colors.to_rgb(color))
        return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    low, high = sorted([luminance(first), luminance(second)])
    return (high + 0.05) / (low + 0.05)


def test_the_style_is_legible():
    lab.use_style()
    for name in ("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"):
        assert contrast(plt.rcParams[name], plt.rcParams["figure.facecolor"]) >= 7, name
    colors = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    assert len(set(colors)) == len(colors) == 7
    assert min(contrast(color, "white") for color in colors) >= 2
