"""Diagnostics are held against exact posteriors, and must refuse the wrong ones; samples against copies."""

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from scorebook import lab
from scorebook.lab import diagnostics
from scorebook.lab.diagnostics import calibration, copying, coverage, covered, nearest, same_kind, told_apart

F64 = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=F64)


def problems(n_draws=19, n=600, *, width=1.0, shift=0.0, noise=0.5, assumed=None, seed=0):
    """Draws of the posterior of theta ~ N(0, 1), y = theta + noise z, in 3 dimensions, and the truths.

    Args:
        n_draws: for each problem.
        n: number of problems.
        width: factor on the posterior's standard deviation.
        shift: of its mean, in standard deviations.
        noise: standard deviation of the observation.
        assumed: noise of which the posterior is told; that of the observation by default.
        seed: of everything.
    """
    truth, z, draws = normal(n, 3, seed=seed), normal(n, 3, seed=1000 + seed), normal(n_draws, n, 3, seed=2000 + seed)
    y = truth + noise * z
    variance = 1 / (1 + 1 / (assumed or noise) ** 2)
    std = math.sqrt(variance)
    return variance / (assumed or noise) ** 2 * y + std * (shift + width * draws), truth


def away(estimate, expected):
    """How many standard errors an estimate is from a number, the worst of its entries."""
    return ((estimate.mean - expected) / estimate.standard_error).abs().max().item()


# Posteriors


@pytest.mark.parametrize("level", [0.3, 0.8, 0.9, 0.99])
@pytest.mark.parametrize("n_draws", [2, 6, 99])
def test_the_exact_posterior_covers_at_its_level_however_few_the_draws(n_draws, level):
    assert away(coverage(*problems(n_draws, 3000), level=level), level) < 4


@pytest.mark.parametrize("n_draws", [2, 7, 39])
def test_the_exact_posterior_is_calibrated_however_few_the_draws(n_draws):
    found = calibration(*problems(n_draws, 3000, seed=1), n_bins=7)
    assert away(found.histogram, 1) < 4
    assert away(found.shift, 0) < 4
    assert away(found.spread, 1) < 4
    assert found.histogram.mean.mean() == pytest.approx(1, abs=1e-12)


# Each with what it does to coverage at 0.9, to the spread of ranks and to their shift: less, as it should be, or more.
WRONG = {
    "too sure": (dict(width=0.7), "-", "+", "0"),
    "too vague": (dict(width=1.4), "+", "-", "0"),
    "shifted up": (dict(shift=0.4), "?", "?", "-"),
    "shifted down": (dict(shift=-0.4), "?", "?", "+"),
    "noise taken for half": (dict(assumed=0.25), "-", "+", "0"),
    "noise taken for double": (dict(assumed=1.0), "+", "-", "0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_posterior_is_refused_and_its_kind_is_told(name):
    how, *expected = WRONG[name]
    for seed in range(3):
        draws, truth = problems(39, 500, **how, seed=seed)
        found = calibration(draws, truth)
        measured = (
            (coverage(draws, truth, level=0.9), 0.9),
            (found.spread, 1.0),
            (found.shift, 0.0),
        )
        assert away(found.histogram, 1) > 4
        for (estimate, right), side in zip(measured, expected, strict=True):
            off = ((estimate.mean - right) / estimate.standard_error).item()
            assert {"-": off < -4, "+": off > 4, "0": abs(off) < 4, "?": True}[side], (name, seed, estimate, right)


def test_one_draw_knows_its_level_for_what_it_is_worth():
    # Its two places are alike for an interval in the middle.
    assert coverage(*problems(1, 30), level=0.3).mean.item() == pytest.approx(0.3, abs=1e-12)


def test_the_prior_covers_as_it_should_and_only_its_width_tells():
    truth, draws = normal(2000, 3), normal(39, 2000, 3, seed=1)
    assert away(coverage(draws, truth), 0.9) < 4
    assert away(calibration(draws, truth).histogram, 1) < 4


def test_an_interval_is_that_of_order_statistics_where_their_number_fits():
    draws, truth = problems(39, 50)
    ordered = draws.sort(0).values
    expected = ((ordered[1] < truth) & (truth < ordered[-2])).double()
    assert torch.equal(covered(draws, truth, level=0.9), expected)
    assert expected.mean().item() == pytest.approx(coverage(draws, truth).mean.item(), abs=1e-12)


@pytest.mark.parametrize("level", [0.25, 0.5, 0.9])
def test_a_truth_that_ties_with_draws_is_covered_in_part_and_right_on_average(level):
    # Coins: many draws equal each other and the truth.
    draws, truth = normal(9, 4000, 2).sign(), normal(4000, 2, seed=1).sign()
    assert away(coverage(draws, truth, level=level), level) < 4
    assert ((covered(draws, truth, level=level) > 0) & (covered(draws, truth, level=level) < 1)).any()
    assert away(calibration(draws, truth).spread, 1) < 4


def test_no_monotone_map_changes_a_rank():
    draws, truth = problems(12, 80)
    for one, other in ((draws, truth), (draws.exp(), truth.exp())), ((draws, truth), (5 * draws + 3, 5 * truth + 3)):
        assert torch.equal(covered(*one), covered(*other))
    mirrored = calibration(-draws, -truth)
    straight = calibration(draws, truth)
    torch.testing.assert_close(mirrored.shift.mean, -straight.shift.mean)
    torch.testing.assert_close(mirrored.histogram.mean, straight.histogram.mean.flip(0))


def test_the_errors_of_coverage_are_those_of_rows_whose_entries_depend_on_each_other():
    values = []
    for seed in range(300):
        draws, truth = problems(19, 40, seed=seed)
        values.append(coverage(draws[:, :, :1].expand(19, 40, 3), truth[:, :1].expand(40, 3)))
    means = torch.stack([v.mean for v in values])
    claimed = torch.stack([v.standard_error.square() for v in values]).mean().sqrt()
    assert abs(means.std() / claimed - 1) < 4 / math.sqrt(2 * 300)


@pytest.mark.parametrize("level", [0, 1, 1.5, True, "0.9", math.nan])
def test_a_level_is_between_0_and_1(level):
    with pytest.raises(ValueError, match="level must be a number between 0 and 1"):
        covered(*problems(5, 4), level=level)


def test_draws_of_other_problems_are_refused():
    draws, truth = problems(5, 4)
    with pytest.raises(ValueError, match=r"draws must have shape \(m, B, \*event\).*\(4, 3\), got \(4, 5, 3\)"):
        coverage(draws.transpose(0, 1), truth)
    with pytest.raises(ValueError, match="n_bins must be a positive integer"):
        calibration(draws, truth, n_bins=0)


# Two samples


@pytest.mark.parametrize(("n", "m", "d"), [(100, 100, 2), (60, 180, 5), (20, 150, 1)])
def test_neighbours_of_one_law_have_the_exact_expectation_and_the_error_says_how_far_off(n, m, d):
    found = [same_kind(normal(n, d, seed=s), normal(m, d, seed=5000 + s)) for s in range(300)]
    means = torch.stack([f.mean for f in found])
    expected = (n * (n - 1) + m * (m - 1)) / ((n + m) * (n + m - 1))
    assert abs(means.mean() - expected) < 4 * means.std() / math.sqrt(300)
    claimed = torch.stack([f.standard_error.square() for f in found]).mean().sqrt()
    # A binomial error, which takes neighbours for independent, is a fifth too small.
    assert abs(means.std() / claimed - 1) < 0.17


def test_neighbours_tell_laws_apart_and_see_copies():
    x, y = normal(150, 3), normal(150, 3, seed=1)
    assert away(same_kind(x, y), 149 / 299) < 4
    assert same_kind(x, 10 + y).mean == 1
    assert same_kind(x, y + 1).mean - 0.5 > 4 * same_kind(x, y + 1).standard_error
    assert same_kind(x, x + 1e-3 * y).mean == 0


def test_a_classifier_is_right_half_the_time_about_one_law_and_its_error_is_binomial():
    found = [told_apart(normal(60, 2, seed=s), normal(60, 2, seed=900 + s), generator=generator(s)) for s in range(200)]
    means = torch.stack([f.mean for f in found])
    assert abs(means.mean() - 0.5) < 4 * means.std() / math.sqrt(200)
    assert abs(means.std() / torch.stack([f.standard_error for f in found]).mean() - 1) < 4 / math.sqrt(400)


DIFFERENT = {
    "another mean": lambda x: x + 0.7,
    "another scale": lambda x: 1.8 * x,
    "another correlation": lambda x: torch.stack([x[:, 0], 0.9 * x[:, 0] + math.sqrt(0.19) * x[:, 1]], dim=1),
    "a mode that is missing": lambda x: torch.where(x[:, :1] > 0.3, -x, x),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_classifier_tells_laws_apart(name):
    for seed in range(3):
        x, y = normal(600, 2, seed=seed), DIFFERENT[name](normal(600, 2, seed=100 + seed))
        found = told_apart(x, y, generator=generator(seed))
        assert found.mean - 0.5 > 4 * found.standard_error, found
        assert found.n == 600


def test_a_classifier_of_ones_own_sees_what_it_can_see():
    x, y = normal(600, 2), 1.8 * normal(600, 2, seed=1)
    assert away(told_apart(x, y, classifier=LogisticRegression(), generator=generator()), 0.5) < 4
    assert told_apart(x, x + 1, classifier=LogisticRegression(), generator=generator()).mean > 0.6


def test_of_the_greater_sample_as_many_are_asked_as_there_are_in_the_other():
    found = told_apart(normal(40, 2), normal(400, 2, seed=1), generator=generator())
    assert found.n == 40
    assert away(found, 0.5) < 4


def test_too_few_points_cannot_be_told_apart():
    with pytest.raises(ValueError, match="x and y must hold at least 4 points each, got 3 and 9"):
        told_apart(normal(3, 2), normal(9, 2))
    with pytest.raises(ValueError, match="x and y must hold at least 3 points together, got 2"):
        same_kind(normal(1, 2), normal(1, 2))


# Copies


def test_the_nearest_point_is_the_nearest(monkeypatch):
    x, points = normal(40, 1, 2, 2), normal(30, 1, 2, 2, seed=1)
    gap = (x.flatten(1)[:, None] - points.flatten(1)).norm(dim=2)
    for _ in range(2):
        distances, indices = nearest(x, points)
        torch.testing.assert_close(distances, gap.min(1).values)
        assert torch.equal(indices, gap.argmin(1))
        monkeypatch.setattr(diagnostics, "_LARGEST_CHUNK", 70)
    whole = same_kind(x, points).mean, copying(x, points, x + 1).stranger.mean
    monkeypatch.undo()
    assert whole == (same_kind(x, points).mean, copying(x, points, x + 1).stranger.mean)


def suspects(seed):
    """Training data, held-out data, honest samples and copies, of one law in 8 dimensions."""
    training, held_out, honest, jitter = (normal(n, 8, seed=10 * seed + k) for k, n in enumerate((800, 400, 600, 600)))
    copies = training[:600] + 0.01 * jitter
    quarter = torch.where(torch.arange(600)[:, None] % 4 == 0, copies, honest)
    return training, held_out, honest, copies, quarter


@pytest.mark.parametrize("seed", range(3))
def test_an_honest_sampler_is_as_near_to_the_training_data_as_held_out_data_are(seed):
    training, held_out, honest, _, _ = suspects(seed)
    found = copying(honest, training, held_out)
    error = math.hypot(found.nearer.standard_error, found.stranger.standard_error)
    assert abs(found.nearer.mean - found.stranger.mean) < 4 * error
    assert found.stranger.mean == pytest.approx(800 / 1199, abs=4 * found.stranger.standard_error.item())
    # The twentieth quantile of 400 distances is off by chance too.
    assert abs(found.close.mean - found.usual) < 4 * math.hypot(
        found.close.standard_error, math.sqrt(0.05 * 0.95 / 400)
    )
    assert abs(found.distance.mean - 1) < 4 * math.sqrt(2.5) * found.distance.standard_error


@pytest.mark.parametrize("seed", range(3))
def test_copies_and_a_quarter_of_copies_are_seen(seed):
    training, held_out, _, copies, quarter = suspects(seed)
    replayed, mixed = copying(copies, training, held_out), copying(quarter, training, held_out)
    assert replayed.nearer.mean == replayed.close.mean == 1
    assert replayed.distance.mean < 0.05
    excess = mixed.close.mean - mixed.usual
    assert excess > 4 * math.hypot(mixed.close.standard_error, math.sqrt(0.05 * 0.95 / 400))
    assert mixed.close.mean == pytest.approx(0.25 + 0.75 * 0.05, abs=0.06)


def test_copies_of_digits_are_seen():
    (training, _), (held_out, _) = lab.digits("train"), lab.digits("test")
    quarter = torch.cat([held_out[:90], training[:30]])
    honest, mixed = copying(held_out[:180], training, held_out[180:]), copying(quarter, training, held_out[180:])
    assert abs(honest.close.mean - 0.05) < 4 * math.hypot(honest.close.standard_error, math.sqrt(0.05 * 0.95 / 180))
    assert mixed.close.mean - 0.05 > 4 * mixed.close.standard_error
    assert copying(training[:100], training, held_out).nearer.mean == 1


def test_held_out_data_that_were_learned_from_are_refused():
    training = normal(50, 2)
    with pytest.raises(ValueError, match="held_out must hold points that training does not"):
        copying(normal(9, 2, seed=1), training, training[:20])
    with pytest.raises(ValueError, match="held_out must hold at least 2 points, got 1"):
        copying(normal(9, 2, seed=1), training, normal(1, 2, seed=2))
    with pytest.raises(ValueError, match="usual must be a number between 0 and 1, got 1"):
        copying(normal(9, 2, seed=1), training, normal(9, 2, seed=2), usual=1)
