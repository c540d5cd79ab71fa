"""Langevin dynamics is held against the exact law of its own chain, and its adjusted form against the target."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from scorebook.lab.distributions import GaussianMixture
from scorebook.langevin import (
    autocorrelation,
    effective_sample_size,
    gradient_ascent,
    langevin,
    metropolis_adjusted_langevin,
)

F64 = torch.float64
STEPS = pytest.mark.parametrize("step_size", [0.05, 0.5, 1.5])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=1):
    return torch.randn(shape, generator=generator(seed), dtype=F64)


def standard_score(x):
    return -x


def standard_log_prob(x):
    return -0.5 * x.square().flatten(1).sum(1)


def assert_mean(values, expected):
    """Assert that independent values have the expected mean, to four standard errors."""
    error = values.std(0) / math.sqrt(len(values))
    assert ((values.mean(0) - expected).abs() <= 4 * error).all(), (values.mean(0), expected, error)


def assert_moments(x, mean, variance):
    """Assert mean and variance of independent Gaussian numbers, to four standard errors."""
    n = len(x)
    assert abs(x.mean() - mean) <= 4 * math.sqrt(variance / n), (x.mean(), mean)
    assert abs(x.var() - variance) <= 4 * variance * math.sqrt(2 / n), (x.var(), variance)


def skewed(dtype=F64):
    """Two overlapping modes of unequal weight and width on the line: nothing about it is symmetric."""
    return GaussianMixture(
        [0.3, 0.7], torch.tensor([[-1.5], [1.0]], dtype=dtype), torch.tensor([0.3, 1.0], dtype=dtype)
    )


def two_modes(dtype=F64):
    return GaussianMixture([0.2, 0.8], torch.tensor([[-5.0, -5.0], [5.0, 5.0]], dtype=dtype), 1.0)


# One step


@given(
    step_size=st.floats(1e-4, 10),
    seed=st.integers(0, 2**32),
    event=st.sampled_from([(), (1,), (3,), (1, 2, 2)]),
    rowwise=st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_a_step_is_the_formula(step_size, seed, event, rowwise):
    x = torch.randn(5, *event, generator=generator(seed), dtype=F64)
    steps = step_size * torch.arange(1, 6, dtype=F64) if rowwise else torch.tensor(step_size, dtype=F64)
    column = steps.reshape(-1, *[1] * len(event)) if rowwise else steps
    z = torch.randn(x.shape, generator=generator(seed + 1), dtype=F64)
    new = langevin(torch.sin, x, step_size=steps, n_steps=1, generator=generator(seed + 1))
    torch.testing.assert_close(new, x + column * torch.sin(x) + (2 * column).sqrt() * z)
    torch.testing.assert_close(gradient_ascent(torch.sin, x, step_size=steps, n_steps=1), x + column * torch.sin(x))


def test_the_noise_of_a_step_is_standard_normal():
    x = normal(20_000, 2)
    noise = (langevin(standard_score, x, step_size=0.3, n_steps=1, generator=generator()) - 0.7 * x) / math.sqrt(0.6)
    for power, moment in enumerate([0, 1, 0, 3, 0, 15], start=1):
        assert_mean(noise**power, moment)
    assert_mean(noise[:, 0] * noise[:, 1], 0)
    assert_mean(noise * x, 0)


# The law of the chain on a Gaussian, which stays Gaussian


@STEPS
@pytest.mark.parametrize("std", [1.0, 2.5])
def test_stationary_variance_shows_the_bias_of_the_step(step_size, std):
    step_size = step_size * std**2
    n_steps = math.ceil(12 / min(step_size / std**2, 2 - step_size / std**2))
    x = 3 * std + normal(20_000, 1)
    x = langevin(lambda x: -x / std**2, x, step_size=step_size, n_steps=n_steps, generator=generator())
    assert_moments(x, 0, 2 * std**4 / (2 * std**2 - step_size))


def test_mean_and_variance_follow_their_recursion_from_the_start():
    step_size, mean, variance = 0.2, 4.0, 0.25
    start = mean + math.sqrt(variance) * normal(20_000, 1)
    path = langevin(standard_score, start, step_size=step_size, n_steps=20, generator=generator(), trajectory=True)
    for x in path:
        assert_moments(x, mean, variance)
        mean, variance = (1 - step_size) * mean, (1 - step_size) ** 2 * variance + 2 * step_size


@STEPS
def test_stationary_covariance_of_a_correlated_gaussian(step_size):
    precision = torch.tensor([[1.0, 0.4], [0.4, 0.7]], dtype=F64)
    expected = torch.linalg.inv(precision - 0.5 * step_size * precision @ precision)
    n_steps = 120 if step_size > 0.1 else 250
    x = langevin(
        lambda x: -x @ precision, normal(10_000, 2), step_size=step_size, n_steps=n_steps, generator=generator()
    )
    for i, j in [(0, 0), (0, 1), (1, 1)]:
        assert_mean(x[:, i] * x[:, j], expected[i, j])


def test_autocorrelation_of_a_gaussian_decays_by_one_minus_the_step():
    path = langevin(standard_score, normal(2000, 1), step_size=0.3, n_steps=300, generator=generator(), trajectory=True)
    groups = torch.stack([autocorrelation(part, max_lag=6)[:, 0] for part in path[50:].split(100, dim=1)])
    assert_mean(groups[:, 1:], 0.7 ** torch.arange(1, 7, dtype=F64) * (1 - torch.arange(1, 7, dtype=F64) / 251))


# The target


def test_small_steps_sample_a_mixture():
    target = skewed()
    # The bias at this step lies far below the standard error.
    x = langevin(target.score, 3 * normal(4000, 1), step_size=0.005, n_steps=1500, generator=generator())
    assert_mean(x, target.mean)
    assert_mean((x - target.mean) ** 2, target.covariance[0])
    assert_mean(target.responsibilities(x), target.weights)


@pytest.mark.parametrize("step_size", [0.1, 0.6])
def test_adjusted_chain_samples_a_mixture_at_any_step(step_size):
    target = skewed()
    x, _ = metropolis_adjusted_langevin(
        target.log_prob, 3 * normal(10_000, 1), step_size=step_size, n_steps=150, generator=generator()
    )
    for power in (1, 2, 3):
        exact = target.sample(1_000_000, generator=generator(3)) ** power
        values = x**power
        error = math.sqrt(values.var() / len(values) + exact.var() / len(exact))
        assert abs(values.mean() - exact.mean()) <= 4 * error
    assert_mean(target.responsibilities(x), target.weights)


@STEPS
def test_adjustment_removes_the_bias_of_the_step(step_size):
    n_steps = math.ceil(10 / step_size)
    x, _ = metropolis_adjusted_langevin(
        standard_log_prob, 3 * normal(20_000, 1), step_size=step_size, n_steps=n_steps, generator=generator()
    )
    assert_moments(x, 0, 1)


def flow_imbalance(before, after):
    r"""z-scores of :math:`E[f(x) g(y) - g(x) f(y)]`, which is zero if ``(x, y)`` and ``(y, x)`` have the same law."""
    features = torch.cat([before, before.square(), before.pow(3), before.tanh()], 1)
    swapped = torch.cat([after, after.square(), after.pow(3), after.tanh()], 1)
    difference = features[:, :, None] * swapped[:, None, :] - swapped[:, :, None] * features[:, None, :]
    upper = difference[:, *torch.triu_indices(4, 4, 1)]
    return upper.mean(0) / upper.std(0) * math.sqrt(len(upper))


@pytest.mark.parametrize("step_size", [0.2, 0.8])
def test_adjusted_chain_is_in_detailed_balance(step_size):
    target = skewed()
    before = target.sample(200_000, generator=generator(5))
    after, _ = metropolis_adjusted_langevin(
        target.log_prob, before, step_size=step_size, n_steps=1, generator=generator(6)
    )
    assert flow_imbalance(before, after).abs().max() < 4
    unadjusted = langevin(target.score, before, step_size=step_size, n_steps=1, generator=generator(6))
    assert flow_imbalance(before, unadjusted).abs().max() > 8  # the test would see a chain out of balance


@STEPS
def test_acceptance_rate_is_its_integral(step_size):
    axis = torch.linspace(-9, 9, 601, dtype=F64)
    x, z = torch.meshgrid(axis, axis, indexing="ij")
    y = (1 - step_size) * x + math.sqrt(2 * step_size) * z
    # On N(0, 1) the logarithm of the ratio is step/4 (x^2 - y^2).
    probability = (step_size / 4 * (x**2 - y**2)).clamp(max=0).exp()
    weight = (-(x**2 + z**2) / 2).exp()
    expected = (probability * weight).sum() / weight.sum()
    _, rate = metropolis_adjusted_langevin(
        standard_log_prob, normal(20_000, 1), step_size=step_size, n_steps=20, generator=generator()
    )
    assert rate.shape == (20_000,)
    assert_mean(rate, expected)


def test_an_unnormalised_density_will_do():
    target, runs = skewed(), []
    for constant in (0.0, 123.0):
        runs.append(
            metropolis_adjusted_langevin(
                lambda x, c=constant: target.log_prob(x) + c,
                normal(50, 1),
                step_size=0.5,
                n_steps=30,
                generator=generator(),
            )
        )
    torch.testing.assert_close(runs[0], runs[1])


def test_adjusted_chain_respects_the_edge_of_the_support():
    def log_prob(x):
        return torch.where(x[:, 0] > 0, -x[:, 0], -torch.inf)

    path, _ = metropolis_adjusted_langevin(
        log_prob, torch.ones(5000, 1, dtype=F64), step_size=0.5, n_steps=150, generator=generator(), trajectory=True
    )
    assert (path > 0).all()
    assert_mean(path[-1], 1.0)
    assert_mean(path[-1] ** 2, 2.0)


def test_a_density_that_is_infinite_somewhere_draws_no_chain_in():
    def log_prob(x):
        return torch.where(x[:, 0] < 1, standard_log_prob(x), torch.inf + 0 * x[:, 0])

    with pytest.warns(UserWarning, match=r"proposals were refused because log_prob"):
        path, rate = metropolis_adjusted_langevin(
            log_prob, torch.zeros(50, 1, dtype=F64), step_size=0.5, n_steps=50, generator=generator(), trajectory=True
        )
    assert (path < 1).all()
    assert (rate > 0.3).all()


def turns(value, call, rows):
    """The standard normal density, but for some rows from some call on."""
    n_calls = 0

    def log_prob(x):
        nonlocal n_calls
        n_calls += 1
        log_p = standard_log_prob(x)
        if n_calls > call:  # the first call is at the start
            # Of a root the value at zero is finite, the gradient is not.
            other = (0 * x[rows, 0]).sqrt() if value == "gradient" else value + 0 * x[rows, 0]
            log_p = log_p.index_put((torch.tensor(rows),), other)
        return log_p

    return log_prob


@pytest.mark.parametrize("value", [math.nan, math.inf, "gradient"])
@pytest.mark.parametrize(("call", "message"), [(1, "9 of 12 proposals"), (3, "3 of 12 proposals")])
def test_proposals_without_a_density_are_refused_and_told(value, call, message):
    x = torch.full((4, 1), 0.5, dtype=F64)
    with pytest.warns(UserWarning, match=rf"{message} were .* first at step {call} of 3, in 3 of 4 rows") as told:
        path, _ = metropolis_adjusted_langevin(
            turns(value, call, [0, 2, 3]), x, step_size=0.1, n_steps=3, generator=generator(), trajectory=True
        )
    assert [warning.filename for warning in told] == [__file__]
    assert torch.equal(path[call:, [0, 2, 3]], path[call - 1, [0, 2, 3]].expand(len(path) - call, 3, 1))
    assert path.isfinite().all()


def test_an_edge_of_the_support_is_no_cause_for_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metropolis_adjusted_langevin(
            turns(-math.inf, 1, [0]), torch.zeros(4, 1, dtype=F64), step_size=0.1, n_steps=3, generator=generator()
        )


# Collapse and slow mixing


@given(step_size=st.floats(0.01, 1.9), n_steps=st.integers(1, 30))
@settings(max_examples=30, deadline=None)
def test_ascent_on_a_gaussian_contracts_by_one_minus_the_step(step_size, n_steps):
    x = normal(7, 3)
    new = gradient_ascent(standard_score, x, step_size=step_size, n_steps=n_steps)
    torch.testing.assert_close(new, (1 - step_size) ** n_steps * x)


def test_ascent_collapses_on_the_modes():
    target = two_modes()
    ends = gradient_ascent(target.score, 4 * normal(500, 2), step_size=0.5, n_steps=200)
    distances = torch.cdist(ends, target.means).amin(1)
    assert (distances < 1e-6).all()
    assert len(ends.round(decimals=4).unique(dim=0)) == 2


def test_far_modes_keep_the_weights_of_the_start():
    target = two_modes()
    start = 16 * torch.rand(4000, 2, generator=generator(2), dtype=F64) - 8
    ends = langevin(target.score, start, step_size=0.05, n_steps=400, generator=generator())
    majority = target.responsibilities(ends)[:, 1]
    # The score turns where x1 + x2 = -log(4)/10; that much of the square flows to the majority, whatever its weight.
    edge = math.log(4) / 10
    assert_mean(majority, 1 - (16 - edge) ** 2 / (2 * 16**2))
    assert majority.mean() < 0.6


# A diverging chain


def test_a_diverging_path_says_where_and_how():
    start = torch.tensor([[0.0], [1.0]])
    with pytest.raises(RuntimeError, match=r"chain 1 diverged at step 128 of 200 with step_size 3: .* 1\.701e\+38"):
        gradient_ascent(standard_score, start, step_size=3.0, n_steps=200)


def test_a_diverging_chain_stops():
    with pytest.raises(RuntimeError, match=r"step_size 3: .*largest value before that step was"):
        langevin(standard_score, torch.ones(10, 2), step_size=3.0, n_steps=200, generator=generator())


def test_a_diverging_chain_reports_its_own_step_size():
    steps = torch.tensor([0.1, 2.5, 0.1])
    with pytest.raises(RuntimeError, match=r"chain 1 diverged .* with step_size 2\.5"):
        langevin(standard_score, torch.ones(3, 2), step_size=steps, n_steps=1000, generator=generator())


def test_a_score_that_is_not_a_number_stops_the_chain():
    with pytest.raises(RuntimeError, match=r"chain 0 diverged at step 1 of 5 .* the score itself is not finite"):
        langevin(lambda x: x.log(), -torch.ones(2, 2), step_size=0.1, n_steps=5)


def test_an_adjusted_chain_never_diverges():
    x, rate = metropolis_adjusted_langevin(
        lambda x: -x.pow(4).sum(1), torch.full((20, 1), 3.0), step_size=10.0, n_steps=100, generator=generator()
    )
    assert torch.isfinite(x).all()
    assert rate.max() < 0.2


# Effective sample size


@given(n=st.integers(2, 30), n_chains=st.integers(1, 4), seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_autocorrelation_is_its_definition(n, n_chains, seed):
    path = torch.randn(n, n_chains, 2, generator=generator(seed), dtype=F64)
    deviation = path - path.mean((0, 1))
    sums = torch.stack([(deviation[: n - k] * deviation[k:]).sum((0, 1)) for k in range(n)])
    torch.testing.assert_close(autocorrelation(path), sums / sums[0])
    torch.testing.assert_close(autocorrelation(path, max_lag=n // 2), (sums / sums[0])[: n // 2 + 1])


@pytest.mark.parametrize("correlation", [0.9, 0.5, 0.0, -0.5])
def test_effective_sample_size_of_an_autoregression(correlation):
    n, n_chains = 1000, 600
    noise = normal(n, n_chains, 1) * math.sqrt(1 - correlation**2)
    path = [normal(n_chains, 1, seed=2)]
    for z in noise:
        path.append(correlation * path[-1] + z)
    groups = torch.stack(path[1:]).split(30, dim=1)
    sizes = torch.stack([effective_sample_size(group) for group in groups])
    assert_mean(1 / sizes, (1 + correlation) / (1 - correlation) / (30 * n))


def test_effective_sample_size_of_a_single_chain_sums_no_noise():
    # The whole sum of a chain's own correlations is zero, whatever the chain: where the sum ends decides.
    x, path = normal(1, 1), []
    for z in normal(20_000, 1, 1, seed=2) * math.sqrt(0.75):
        x = 0.5 * x + z
        path.append(x)
    assert 0.8 < effective_sample_size(torch.stack(path)).item() / (20_000 / 3) < 1.25


def test_effective_sample_size_predicts_the_error_of_a_mean():
    path = langevin(standard_score, normal(4000, 1), step_size=0.1, n_steps=400, generator=generator(), trajectory=True)
    means = path.mean(0)  # of each chain alone
    predicted = path.var() / (effective_sample_size(path) / 4000)
    assert abs(means.var() / predicted - 1) < 4 * math.sqrt(2 / 4000)


@pytest.mark.parametrize("n", [50, 51])
def test_chains_that_never_move_are_worth_one_draw_each(n):
    path = normal(1, 200, 2).expand(n, 200, 2)
    torch.testing.assert_close(effective_sample_size(path), torch.full((2,), 200.0, dtype=F64), rtol=1e-3, atol=0)


def test_only_many_chains_see_the_mode_they_miss():
    target = two_modes()
    path = langevin(
        target.score,
        target.sample(400, generator=generator(1)),
        step_size=0.2,
        n_steps=400,
        generator=generator(),
        trajectory=True,
    )
    alone = torch.stack([effective_sample_size(path[:, [b]]) for b in range(20)]).mean()
    together = effective_sample_size(path).mean() / 400
    assert alone > 20
    assert together < 1.2


# What every sampler here owes its caller


def run_ascent(x, step_size=0.2, n_steps=5, **options):
    options.pop("generator", None)
    return gradient_ascent(torch.sin, x, step_size=step_size, n_steps=n_steps, **options)


def run_langevin(x, step_size=0.2, n_steps=5, **options):
    return langevin(torch.sin, x, step_size=step_size, n_steps=n_steps, **options)


def run_adjusted(x, step_size=0.2, n_steps=5, **options):
    return metropolis_adjusted_langevin(standard_log_prob, x, step_size=step_size, n_steps=n_steps, **options)[0]


SAMPLERS = pytest.mark.parametrize("run", [run_ascent, run_langevin, run_adjusted])


@SAMPLERS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("event", [(1,), (3,), (1, 2, 2)])
def test_trajectory_starts_at_the_start_and_ends_at_the_end(run, dtype, event):
    x = normal(6, *event).to(dtype)
    path = run(x, trajectory=True, generator=generator())
    assert path.shape == (6, 6, *event)
    assert path.dtype == dtype
    assert torch.equal(path[0], x)
    assert torch.equal(path[-1], run(x, generator=generator()))


@SAMPLERS
def test_an_image_is_its_vector_of_pixels(run):
    x = normal(6, 1, 2, 2)
    flat = run(x.flatten(1), generator=generator())
    torch.testing.assert_close(run(x, generator=generator()).flatten(1), flat)


@SAMPLERS
def test_chains_do_not_see_each_other(run):
    x = normal(6, 2)
    others = x.clone()
    others[1:] *= 3
    assert torch.equal(run(x, generator=generator())[0], run(others, generator=generator())[0])
    assert not torch.equal(run(x, generator=generator())[1], run(others, generator=generator())[1])


@SAMPLERS
def test_one_step_size_for_each_chain(run):
    x, steps = normal(4, 2), torch.tensor([0.1, 0.2, 0.4, 0.8], dtype=F64)
    together = run(x, step_size=steps, generator=generator())
    for row, step_size in enumerate(steps.tolist()):
        alone = run(x, step_size=step_size, generator=generator())
        torch.testing.assert_close(together[row], alone[row])


@SAMPLERS
def test_the_generator_is_the_only_source_of_randomness(run):
    before = torch.random.get_rng_state()
    x = normal(5, 2)
    first, second = (run(x, generator=generator(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), before)
    if run is not run_ascent:
        assert not torch.equal(first, run(x, generator=generator(4)))


@SAMPLERS
def test_no_graph_is_kept_and_the_start_is_left_alone(run):
    x = normal(5, 2).requires_grad_()
    before = x.detach().clone()
    assert not run(x, generator=generator()).requires_grad
    assert torch.equal(x.detach(), before)


def test_a_network_is_a_score_and_an_energy_is_a_log_density():
    torch.manual_seed(0)
    network = nn.Linear(2, 2).double()
    energy = nn.Sequential(nn.Linear(2, 4), nn.SiLU(), nn.Linear(4, 1), nn.Flatten(0)).double()
    x = normal(5, 2)
    assert torch.isfinite(langevin(network, x, step_size=0.1, n_steps=3)).all()
    assert torch.isfinite(metropolis_adjusted_langevin(energy, x, step_size=0.1, n_steps=3)[0]).all()
    assert all(p.grad is None for p in [*network.parameters(), *energy.parameters()])


def test_the_gradient_in_the_adjusted_chain_is_the_score():
    target, x = skewed(), normal(50, 1)
    # A step so small that all proposals are taken is a Langevin step.
    adjusted, rate = metropolis_adjusted_langevin(target.log_prob, x, step_size=1e-8, n_steps=1, generator=generator())
    assert (rate == 1).all()
    torch.testing.assert_close(adjusted, langevin(target.score, x, step_size=1e-8, n_steps=1, generator=generator()))


@SAMPLERS
@pytest.mark.parametrize("step_size", [0.2, torch.tensor(0.2), torch.tensor([0.2, 0.1, 0.3])])
def test_runs_on_the_meta_device(run, step_size):
    x = torch.empty(3, 2, device="meta")
    path = run(x, step_size=step_size, trajectory=True)
    assert path.is_meta
    assert path.shape == (6, 3, 2)
    assert effective_sample_size(path).shape == (2,)


@SAMPLERS
@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"step_size": 0.0}, "step_size must be positive"),
        ({"step_size": -0.1}, "step_size must be positive"),
        ({"step_size": math.nan}, "step_size must be positive"),
        ({"step_size": torch.tensor([0.1, -0.1, 0.1])}, "step_size must be positive"),
        ({"step_size": torch.ones(2)}, r"step_size must be a scalar or have shape \(3,\)"),
        ({"step_size": "large"}, "step_size must be a number"),
        ({"n_steps": 0}, "n_steps must be a positive integer"),
        ({"n_steps": 2.0}, "n_steps must be a positive integer"),
        ({"n_steps": True}, "n_steps must be a positive integer"),
        ({"x": torch.zeros(3, 2, dtype=torch.int64)}, "x must be a floating tensor"),
        ({"x": torch.tensor(1.0)}, "x must be a floating tensor"),
        ({"x": torch.tensor([[0.0], [math.nan]])}, "x must be finite"),
        ({"x": [[0.0]]}, "x must be a floating tensor"),
    ],
)
def test_bad_arguments_are_named(run, wrong, match):
    with pytest.raises(ValueError, match=match):
        run(**{"x": torch.zeros(3, 2)} | wrong)


@pytest.mark.parametrize("sampler", [gradient_ascent, langevin])
@pytest.mark.parametrize("score", [lambda x: x[:, :1], lambda x: x[0], lambda x: 1.0, lambda x: x.sum(1)])
def test_a_score_of_another_shape_is_refused(sampler, score):
    with pytest.raises(ValueError, match="score must return"):
        sampler(score, torch.zeros(3, 2), step_size=0.1, n_steps=2)


@pytest.mark.parametrize(
    ("log_prob", "match"),
    [
        (lambda x: -x.square(), "log_prob must return one number per row"),
        (lambda x: -x.square().sum(), "log_prob must return one number per row"),
        (lambda x: 0.0, "log_prob must return one number per row"),
        (lambda x: torch.zeros(len(x)), "log_prob must depend on x"),
        (lambda x: -x.detach().square().sum(1), "log_prob must be differentiable in x"),
        (lambda x: -(x - 1).square().sum(1) - (x - 2).detach().square().sum(1), "log_prob must be differentiable in x"),
        (lambda x: x.sum(1).log(), "log_prob at the start must be finite"),
        (lambda x: x.sum(1).sqrt(), "gradient of log_prob at the start must be finite"),
    ],
)
def test_a_wrong_log_prob_is_refused(log_prob, match):
    with pytest.raises(ValueError, match=match):
        metropolis_adjusted_langevin(log_prob, torch.zeros(3, 2), step_size=0.1, n_steps=2)


@pytest.mark.parametrize("function", [autocorrelation, effective_sample_size])
@pytest.mark.parametrize(
    ("path", "match"),
    [
        (torch.zeros(10), "path must have shape"),
        (torch.zeros(1, 3, 2), "path must have shape"),
        (torch.zeros(10, 3, dtype=torch.int64), "path must be a floating tensor"),
        (torch.full((10, 3), math.nan), "path must be finite"),
        (torch.stack([torch.zeros(10, 3), torch.arange(30.0).reshape(10, 3)], -1), "path must vary"),
    ],
)
def test_a_path_without_a_correlation_is_refused(function, path, match):
    with pytest.raises(ValueError, match=match):
        function(path)


@pytest.mark.parametrize("max_lag", [-1, 10, 2.0, True])
def test_a_lag_outside_the_path_is_refused(max_lag):
    with pytest.raises(ValueError, match="max_lag must be an integer from 0 to 9"):
        autocorrelation(normal(10, 3), max_lag=max_lag)
