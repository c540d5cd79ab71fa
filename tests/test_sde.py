"""SDEs are held to their own moment equations, samplers to the exact law of their own chain, losses to closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scorebook.lab.distributions import GaussianMixture
from scorebook.lab.metrics import mode_weights
from scorebook.lab.networks import TimeMLP
from scorebook.sde import (
    SDE,
    VESDE,
    VPSDE,
    ScoreModel,
    StraightPath,
    SubVPSDE,
    at_noise_scale,
    at_time,
    euler_maruyama,
    log_normal_times,
    on_grid,
    predictor_corrector,
    reverse_drift,
    score_matching_loss,
    simulate,
    time_sampler,
)

F64 = torch.float64
EACH_SDE = pytest.mark.parametrize("sde", [VESDE(0.05, 20.0), VPSDE(), SubVPSDE(0.2, 15.0), StraightPath()], ids=repr)
# All but the straight path, whose drift at the end is too steep for steps of one length.
WITH_EVEN_STEPS = pytest.mark.parametrize("sde", [VESDE(0.05, 20.0), VPSDE(), SubVPSDE(0.2, 15.0)], ids=repr)
EACH_SAMPLER = pytest.mark.parametrize("sampler", [euler_maruyama, predictor_corrector])

sdes = st.one_of(
    st.builds(lambda low, ratio: VESDE(low, low * ratio), st.floats(1e-3, 1.0), st.floats(2.0, 1e4)),
    st.builds(lambda low, more: VPSDE(low, low + more), st.floats(1e-2, 1.0), st.floats(0.0, 25.0)),
    st.builds(lambda low, more: SubVPSDE(low, low + more), st.floats(1e-2, 1.0), st.floats(0.0, 25.0)),
    st.builds(StraightPath, st.floats(1e-4, 0.5)),
)
times = st.floats(1e-3, 1.0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=1, dtype=F64):
    return torch.randn(shape, generator=generator(seed), dtype=dtype)


def mixture(dtype=F64):
    """Three modes in the plane, unequal in weight and shape."""
    covariances = [[[0.3, 0.1], [0.1, 0.2]], [[0.5, -0.2], [-0.2, 0.4]], [[0.1, 0.0], [0.0, 0.1]]]
    means = torch.tensor([[-1.5, 0.5], [1.0, 1.0], [0.0, -1.5]], dtype=dtype)
    return GaussianMixture([0.5, 0.3, 0.2], means, covariances)


def derivative(function, t):
    """Derivative in time, by autograd."""
    t = torch.as_tensor(t, dtype=F64).requires_grad_()
    value = function(t).sum()
    if not value.requires_grad:  # constant in time, such as alpha of a VE SDE
        return torch.zeros_like(t)
    return torch.autograd.grad(value, t)[0]


def drift_rate(sde, t):
    """Coefficient of the drift, from the mean of the kernel and not from ``sde.drift``."""
    return (derivative(sde.alpha, t) / sde.alpha(t)).detach()


def squared_diffusion(sde, t):
    """Square of the diffusion coefficient, from the kernel and not from ``sde.diffusion``."""
    return (derivative(lambda t: sde.sigma(t) ** 2, t) - 2 * drift_rate(sde, t) * sde.sigma(t) ** 2).detach()


def assert_moments(x, mean, variance):
    """Assert mean and variance of independent Gaussian numbers, to four standard errors."""
    n = x.numel()
    assert abs(x.mean() - mean) <= 4 * math.sqrt(variance / n), (x.mean(), mean)
    assert abs(x.var() - variance) <= 4 * variance * math.sqrt(2 / n), (x.var(), variance)


def assert_mean(values, expected):
    """Assert that independent values have the expected mean, to four standard errors."""
    error = values.std() / math.sqrt(len(values))
    assert abs(values.mean() - expected) <= 4 * error, (values.mean(), expected, error)


# The kernel and its SDE


@given(sde=sdes, t=times)
def test_the_mean_of_the_kernel_obeys_the_drift(sde, t):
    t = torch.tensor(t, dtype=F64)
    x = normal(3, 2)
    expected = derivative(sde.alpha, t) / sde.alpha(t) * x
    assert (sde.drift(x, t) - expected).abs().max() <= 1e-8 * max(1.0, expected.abs().max())


@given(sde=sdes, t=times)
def test_the_variance_of_the_kernel_obeys_the_moment_equation(sde, t):
    t = torch.tensor(t, dtype=F64)
    growth = derivative(lambda t: sde.sigma(t) ** 2, t)
    rate = sde.drift(torch.ones(1, 1, dtype=F64), t).squeeze()
    expected = 2 * rate * sde.sigma(t) ** 2 + sde.diffusion(t) ** 2
    assert (growth - expected).abs() <= 1e-8 * max(1.0, sde.diffusion(t) ** 2)


@given(sde=sdes)
def test_the_kernel_starts_at_the_data(sde):
    assert sde.alpha(0.0) == 1
    assert sde.sigma(0.0) == (sde.sigma_min if isinstance(sde, VESDE) else 0)


def test_kernels_at_the_end_have_their_published_values():
    torch.testing.assert_close(VESDE(0.01, 50.0).sigma(1.0), torch.tensor(50.0, dtype=F64))
    total = 0.5 * (0.1 + 20.0)
    torch.testing.assert_close(VPSDE(0.1, 20.0).alpha(1.0), torch.tensor(math.exp(-total / 2), dtype=F64))
    torch.testing.assert_close(VPSDE(0.1, 20.0).sigma(1.0) ** 2, torch.tensor(1 - math.exp(-total), dtype=F64))
    torch.testing.assert_close(SubVPSDE(0.1, 20.0).sigma(1.0), torch.tensor(1 - math.exp(-total), dtype=F64))


@given(t=times, low=st.floats(0.01, 1.0), more=st.floats(0.1, 20.0))
def test_variance_preserved_and_less_than_preserved(t, low, more):
    vp, sub = VPSDE(low, low + more), SubVPSDE(low, low + more)
    torch.testing.assert_close(vp.alpha(t) ** 2 + vp.sigma(t) ** 2, torch.tensor(1.0, dtype=F64))
    assert sub.sigma(t) < vp.sigma(t)
    assert sub.alpha(t) == vp.alpha(t)


@given(sde=sdes, t=times)
def test_time_of_inverts_the_noise_to_signal_ratio(sde, t):
    t = torch.tensor(t, dtype=F64)
    ratio = sde.sigma(t) / sde.alpha(t)
    torch.testing.assert_close(sde.time_of(ratio), t, rtol=1e-9, atol=1e-9)
    again = sde.time_of(ratio)
    torch.testing.assert_close(sde.sigma(again) / sde.alpha(again), ratio, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@EACH_SDE
def test_time_of_takes_both_ends_of_its_range_in_any_precision(sde, dtype):
    ends = torch.tensor([0.0, 1.0], dtype=dtype)
    torch.testing.assert_close(sde.time_of(sde.sigma(ends) / sde.alpha(ends)), ends, rtol=0, atol=2e-6)


@WITH_EVEN_STEPS
def test_a_ratio_that_is_a_thousandth_beyond_its_range_is_refused(sde):
    one = torch.tensor(1.0, dtype=F64)
    last = sde.sigma(one) / sde.alpha(one)
    with pytest.raises(ValueError, match="noise_to_signal must lie in"):
        sde.time_of(1.001 * last)
    assert sde.time_of((1 + 1e-7) * last) == 1


@EACH_SDE
@pytest.mark.parametrize("t", [0.3, torch.linspace(0.05, 0.95, 20000, dtype=F64)], ids=["scalar", "per-row"])
def test_perturb_draws_from_the_kernel(sde, t):
    x0 = 1.0 + normal(20000, 2)
    x_t, noise = sde.perturb(x0, t, generator=generator(2))
    alpha, sigma = (torch.as_tensor(v, dtype=F64).reshape(-1, 1) for v in (sde.alpha(t), sde.sigma(t)))
    torch.testing.assert_close(x_t, alpha * x0 + sigma * noise)
    assert_moments(noise, 0.0, 1.0)
    assert abs((noise * x0).mean()) <= 4 * x0.square().mean().sqrt() / math.sqrt(x0.numel())


@WITH_EVEN_STEPS
def test_simulating_the_sde_gives_the_kernel(sde):
    start = 2.0 + sde.sigma(0.0) * normal(20000, 1)
    times = torch.linspace(0, 1, 401, dtype=F64)
    path = simulate(sde.drift, lambda x, t: sde.diffusion(t), start, times, generator=generator(), trajectory=True)
    for k in (100, 400):
        mean, variance = 2.0 * sde.alpha(times[k]), sde.sigma(times[k]) ** 2
        # The scheme's own bias, of first order in the step, comes on top of four standard errors.
        assert abs(path[k].mean() - mean) <= 4 * (variance / 20000).sqrt() + 0.02 * mean
        assert abs(path[k].var() / variance - 1) <= 4 * math.sqrt(2 / 20000) + 0.03


@EACH_SDE
def test_the_prior_is_the_law_of_pure_noise_at_the_end(sde):
    assert abs(sde.prior_std / sde.sigma(1.0) - 1) < 1e-3
    x = sde.sample_prior((10000, 2), generator=generator(), dtype=F64)
    assert_moments(x, 0.0, float(sde.sigma(1.0)) ** 2)
    expected = torch.distributions.Normal(0.0, sde.prior_std).log_prob(x).sum(1)
    torch.testing.assert_close(sde.prior_log_prob(x), expected)
    torch.testing.assert_close(sde.prior_log_prob(x.reshape(-1, 1, 2)), expected)


@EACH_SDE
def test_the_density_obeys_the_fokker_planck_equation(sde):
    law, x, t = mixture(), normal(16, 2), torch.tensor(0.35, dtype=F64)

    def log_density(x, t):
        return law.diffuse(sde.alpha(t), sde.sigma(t)).log_prob(x)

    rate = torch.stack([derivative(lambda t, row=row: log_density(row[None], t), t) for row in x])
    score = sde.exact_score(law)
    jacobians = torch.stack([torch.autograd.functional.jacobian(lambda r: score(r[None], t)[0], row) for row in x])
    slope, laplacian = score(x, t), jacobians.diagonal(dim1=1, dim2=2).sum(1)
    drift_divergence = 2 * sde.drift(torch.ones(1, 1, dtype=F64), t).squeeze()
    transport = -drift_divergence - (sde.drift(x, t) * slope).sum(1)
    diffusion = 0.5 * sde.diffusion(t) ** 2 * (laplacian + slope.square().sum(1))
    torch.testing.assert_close(rate, transport + diffusion, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("spacing", ["uniform", "karras", "share", "angle", "log"])
@EACH_SDE
def test_time_grids_run_evenly_from_one_to_t_min(sde, spacing):
    grid = sde.time_grid(20, t_min=0.01, spacing=spacing, dtype=F64)
    assert grid.shape == (21,)
    assert (grid[0], grid[-1]) == (1, 0.01)
    ratio = sde.sigma(grid) / sde.alpha(grid)
    even = {
        "uniform": grid,
        "karras": ratio ** (1 / 7),
        "share": ratio / (1 + ratio),
        "angle": ratio.arctan(),
        "log": ratio.log(),
    }[spacing]
    torch.testing.assert_close(even.diff(), even.diff().mean().expand(20), rtol=1e-6, atol=0)
    assert sde.time_grid(5).dtype == torch.get_default_dtype()


@pytest.mark.parametrize("spacing", ["uniform", "karras", "share", "angle", "log"])
def test_a_time_grid_begins_where_no_signal_is_left_and_takes_numbers_of_numpy(spacing):
    """At beta_max = 400 the noise is 10^43 times the signal, whose share is 0 in any precision."""
    grid = VPSDE(0.1, 400.0).time_grid(np.int64(8), t_min=np.float32(0.01), spacing=spacing, dtype=F64)
    assert (grid[0], grid[-1], len(grid)) == (1, np.float32(0.01), 9)
    assert (grid.diff() < 0).all()
    assert len(VPSDE().time_grid(1, spacing=spacing)) == 2


def test_the_default_grid_of_the_flow_begins_even_where_alpha_is_0_in_double_precision():
    sde = VPSDE(0.1, 4000.0)
    assert sde.alpha(1.0) == 0
    shares = [sde.sigma(t) / (sde.alpha(t) + sde.sigma(t)) for t in sde.time_grid(8, spacing="share", dtype=F64)]
    steps = torch.stack(shares).diff()
    torch.testing.assert_close(steps, steps.mean().expand(8))


@EACH_SDE
def test_numbers_are_times_in_double_precision_and_raise_no_precision(sde):
    t = 0.1
    exact = torch.tensor(t, dtype=F64)
    assert sde.sigma(t) == sde.sigma(exact)
    assert sde.drift(normal(3, 2, dtype=torch.float32), t).dtype == torch.float32
    assert sde.perturb(normal(3, 2, dtype=torch.float32), t)[0].dtype == torch.float32


# Scores


@pytest.mark.parametrize("t", [0.4, torch.tensor([0.1, 0.4, 0.9], dtype=F64)], ids=["scalar", "per-row"])
@EACH_SDE
def test_exact_score_is_the_gradient_of_the_diffused_log_density(sde, t):
    law = mixture()
    x = normal(3, 2).requires_grad_()
    rows = []
    for row, row_t in zip(x, torch.as_tensor(t, dtype=F64).expand(3), strict=True):
        alpha, sigma = sde.alpha(row_t), sde.sigma(row_t)
        covariances = alpha**2 * law.covariances + sigma**2 * torch.eye(2, dtype=F64)
        parts = torch.distributions.MultivariateNormal(alpha * law.means, covariances).log_prob(row)
        rows.append((parts + law.weights.log()).logsumexp(0))
    (expected,) = torch.autograd.grad(torch.stack(rows).sum(), x)
    torch.testing.assert_close(sde.exact_score(law)(x.detach(), t), expected, rtol=1e-9, atol=1e-9)


def test_exact_score_of_an_image_is_that_of_its_vector():
    sde, law = VPSDE(), GaussianMixture([0.4, 0.6], normal(2, 8), 0.3)
    x = normal(5, 2, 2, 2)
    score = sde.exact_score(law)
    assert torch.equal(score(x, 0.3), score(x.flatten(1), 0.3).reshape(x.shape))


@pytest.mark.parametrize("t", [0.5, torch.tensor([0.2, 0.5, 0.8], dtype=F64)], ids=["scalar", "per-row"])
@EACH_SDE
def test_denoise_is_the_posterior_mean(sde, t):
    law, x = mixture(), normal(3, 2)
    posteriors = [
        law.condition(sde.alpha(row_t) * torch.eye(2, dtype=F64), row, float(sde.sigma(row_t))).mean
        for row, row_t in zip(x, torch.as_tensor(t, dtype=F64).expand(3), strict=True)
    ]
    torch.testing.assert_close(sde.denoise(sde.exact_score(law), x, t), torch.stack(posteriors), rtol=1e-7, atol=1e-7)


@EACH_SDE
def test_reverse_drift_takes_the_whole_squared_diffusion(sde):
    x, t = normal(4, 2), torch.tensor([0.1, 0.3, 0.6, 1.0], dtype=F64)
    score = sde.exact_score(mixture())
    rate, squared = drift_rate(sde, t), squared_diffusion(sde, t)
    expected = rate[:, None] * x - squared[:, None] * score(x, t)
    torch.testing.assert_close(reverse_drift(sde, score, x, t), expected, rtol=1e-8, atol=1e-8)


@given(sde=sdes, t=times, data_std=st.floats(0.1, 10.0))
def test_score_model_is_the_score_of_its_denoised_point(sde, t, data_std):
    x, raw = normal(4, 2), normal(4, 2, seed=3)
    model = ScoreModel(Recorder(raw), sde, data_std)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    ratio = sigma / alpha
    skip = data_std**2 / (ratio**2 + data_std**2)
    out = ratio * data_std / torch.sqrt(ratio**2 + data_std**2)
    denoised = skip * x / alpha + out * raw
    # sigma^2 score + x loses digits where sigma is small, but none that a comparison of denoised points needs.
    torch.testing.assert_close(sde.denoise(model, x, t), denoised, rtol=1e-7, atol=1e-7 * float(1 / alpha))
    torch.testing.assert_close(model.network.c_noise, 0.25 * torch.log(ratio).expand(len(x)))
    torch.testing.assert_close(model.network.x, x / alpha / torch.sqrt(ratio**2 + data_std**2))


class Recorder(nn.Module):
    """A network that answers with what it was given, and remembers what it saw."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x, c_noise, **condition):
        self.x, self.c_noise, self.condition = x, c_noise, condition
        return self.answer


@EACH_SDE
def test_a_silent_network_is_the_exact_score_of_a_gaussian(sde):
    x, t = normal(6, 3), torch.linspace(0.05, 1, 6, dtype=F64)
    model = ScoreModel(Recorder(torch.zeros_like(x)), sde, data_std=0.7)
    exact = sde.exact_score(GaussianMixture([1.0], torch.zeros(1, 3, dtype=F64), 0.7**2))
    torch.testing.assert_close(model(x, t), exact(x, t))


@EACH_SDE
def test_what_the_network_sees_and_should_say_has_unit_variance(sde):
    x0 = 3.0 * normal(50000, 1)
    model = ScoreModel(Recorder(torch.zeros_like(x0)), sde, data_std=3.0)
    t = torch.tensor(0.3, dtype=F64)
    x_t, _ = sde.perturb(x0, t, generator=generator())
    model(x_t, t)
    assert_moments(model.network.x, 0.0, 1.0)
    ratio = sde.sigma(t) / sde.alpha(t)
    skip, out = 9 / (ratio**2 + 9), 3 * ratio / torch.sqrt(ratio**2 + 9)
    assert_moments((x0 - skip * x_t / sde.alpha(t)) / out, 0.0, 1.0)


def test_score_model_keeps_its_digits_where_noise_is_small():
    sde = VESDE(1e-6, 10.0)
    x, raw = normal(5, 2), normal(5, 2, seed=3)
    single = ScoreModel(Recorder(raw.float()), sde, 1.0)(x.float(), 0.0)
    double = ScoreModel(Recorder(raw), sde, 1.0)(x, 0.0)
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=0)


def test_score_model_hands_conditions_to_the_network():
    x = normal(4, 2)
    model = ScoreModel(Recorder(x), VPSDE())
    model(x, 0.5, label=torch.arange(4))
    assert torch.equal(model.network.condition["label"], torch.arange(4))


@EACH_SDE
@pytest.mark.parametrize("known_in_advance", [False, True])
def test_a_score_at_fixed_times_is_the_score_at_each_of_them(sde, known_in_advance):
    model = ScoreModel(TimeMLP(2, generator=generator()).double(), sde, 1.5)
    torch.nn.init.normal_(model.network.trunk.last.weight, generator=generator())
    grid, x = sde.time_grid(6, dtype=F64), normal(4, 2)
    at_each = on_grid(model if known_in_advance else lambda x, t: model(x, t), grid)
    assert len(at_each) == 7
    for score, t in zip(at_each, grid, strict=True):
        torch.testing.assert_close(score(x), model(x, t), rtol=1e-12, atol=0)


def test_a_score_at_fixed_times_hands_conditions_to_the_network():
    model = ScoreModel(Recorder(normal(4, 2)), VPSDE())
    (score,) = model.on_grid(torch.tensor([0.5]))
    score(normal(4, 2), label=torch.arange(4))
    assert torch.equal(model.network.condition["label"], torch.arange(4))


@EACH_SAMPLER
@EACH_SDE
def test_a_sampler_draws_the_same_whether_or_not_a_score_knows_its_times_in_advance(sde, sampler):
    model = ScoreModel(TimeMLP(2, generator=generator()).double(), sde)
    torch.nn.init.normal_(model.network.trunk.last.weight, std=0.1, generator=generator())
    x = sde.sample_prior((6, 2), generator=generator(), dtype=F64)
    known, asked = (
        sampler(sde, score, x, n_steps=13, generator=generator(1)) for score in (model, lambda x, t: model(x, t))
    )
    torch.testing.assert_close(known, asked, rtol=1e-9, atol=1e-12)


@EACH_SDE
def test_a_score_in_time_is_one_in_noise_scale_and_back(sde):
    law, y = mixture(), normal(3, 2)
    sigma = torch.tensor([0.3, 1.0, 4.0], dtype=F64)
    in_time = sde.exact_score(law)
    in_scale = at_noise_scale(in_time, sde)
    torch.testing.assert_close(in_scale(y, sigma), law.diffuse(1.0, sigma).score(y), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(in_scale(y, 1.0), law.diffuse(1.0, 1.0).score(y), rtol=1e-7, atol=1e-9)
    t = sde.time_of(sigma)
    torch.testing.assert_close(at_time(in_scale, sde)(y, t), in_time(y, t), rtol=1e-7, atol=1e-9)


# The loss


def linear_score(x, t):
    """A score that is wrong by design, in a way whose loss has a closed form."""
    return -0.4 * x


def expected_residual(sde, t, data_variance):
    """E (sigma s + z)^2 per dimension for ``linear_score`` on centred Gaussian data."""
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    return 0.4**2 * sigma**2 * alpha**2 * data_variance + (1 - 0.4 * sigma**2) ** 2


@pytest.mark.parametrize("weighting", ["sigma2", "likelihood", "own"])
@EACH_SDE
def test_the_loss_is_half_the_weighted_squared_error(sde, weighting):
    t = torch.tensor(0.25, dtype=F64)
    factor = {"sigma2": 1.0, "likelihood": squared_diffusion(sde, t) / sde.sigma(t) ** 2, "own": 5 / sde.sigma(t) ** 2}
    losses = torch.stack(
        [
            score_matching_loss(
                linear_score,
                sde,
                1.5 * normal(500, 4, seed=seed),
                weighting=(lambda t: torch.full_like(t, 5.0)) if weighting == "own" else weighting,
                sample_times=lambda n, generator: torch.full((n,), 0.25),
                generator=generator(100 + seed),
            )
            for seed in range(60)
        ]
    )
    assert_mean(losses, 0.5 * 4 * factor[weighting] * expected_residual(sde, t, 1.5**2))


@pytest.mark.parametrize("weighting", ["sigma2", "likelihood"])
@EACH_SDE
def test_the_named_weights_are_the_callables_they_stand_for(sde, weighting):
    stands_for = (lambda t: sde.sigma(t) ** 2) if weighting == "sigma2" else (lambda t: sde.diffusion(t) ** 2)
    x = normal(50, 3)
    named, called = (
        score_matching_loss(linear_score, sde, x, weighting=w, generator=generator()) for w in (weighting, stands_for)
    )
    torch.testing.assert_close(named, called)


@EACH_SDE
def test_the_loss_averages_over_uniform_times_from_t_min_on(sde):
    grid = torch.linspace(0.1, 1.0, 2001, dtype=F64)
    expected = 0.5 * 2 * expected_residual(sde, grid, 1.0).mean()
    losses = torch.stack(
        [
            score_matching_loss(linear_score, sde, normal(500, 2, seed=seed), t_min=0.1, generator=generator(seed + 99))
            for seed in range(60)
        ]
    )
    assert_mean(losses, expected)


@EACH_SDE
def test_the_loss_exceeds_its_minimum_by_the_explicit_score_error(sde):
    law, t, score = mixture(), 0.3, sde.exact_score(mixture())
    excess, explicit = [], []
    for seed in range(40):
        x0 = law.sample(500, generator=generator(seed))
        wrong, exact = (
            score_matching_loss(
                model, sde, x0, sample_times=lambda n, generator: torch.full((n,), t), generator=generator(1000 + seed)
            )
            for model in (linear_score, score)
        )
        excess.append(wrong - exact)
        x_t, _ = sde.perturb(x0, t, generator=generator(2000 + seed))
        gap = (linear_score(x_t, t) - score(x_t, t)).square().sum(1)
        explicit.append(0.5 * sde.sigma(t) ** 2 * gap.mean())
    assert_mean(torch.stack(excess) - torch.stack(explicit), 0.0)


def test_the_loss_learns_the_score_of_a_gaussian():
    sde, x = VPSDE(), 2.0 * normal(2000, 1, dtype=torch.float32)
    model = ScoreModel(TimeFactor(), sde, data_std=1.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    g = generator()
    for _ in range(120):
        optimizer.zero_grad()
        score_matching_loss(
            model, sde, x, sample_times=lambda n, generator: torch.full((n,), 0.3), generator=g
        ).backward()
        optimizer.step()
    probe = torch.linspace(-2, 2, 9)[:, None]
    exact = -probe / (4 * sde.alpha(0.3) ** 2 + sde.sigma(0.3) ** 2)
    torch.testing.assert_close(model(probe, 0.3), exact.float(), rtol=0.05, atol=0.0)


class TimeFactor(nn.Module):
    """One number times the input."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.zeros(()))

    def forward(self, x, c_noise):
        return self.factor * x


@pytest.mark.parametrize("p_drop", [0.0, 0.3, 1.0])
def test_labels_are_dropped_with_their_probability_and_otherwise_kept(p_drop):
    seen = []

    def model(x, t, label):
        seen.append(label)
        return -x

    labels = torch.arange(5000) % 10
    score_matching_loss(model, VPSDE(), normal(5000, 2), labels=labels, p_drop=p_drop, generator=generator())
    dropped = seen[0] == -1
    assert torch.equal(seen[0][~dropped], labels[~dropped])
    error = math.sqrt(p_drop * (1 - p_drop) / 5000)
    assert abs(dropped.double().mean() - p_drop) <= 4 * error


@pytest.mark.parametrize("event", [(), (3,), (2, 4)], ids=str)
def test_conditions_of_any_shape_are_dropped_as_a_whole_row(event):
    seen = {}

    def model(x, t, context, pair):
        seen.update(context=context, pair=pair)
        return -x

    context = 1 + normal(500, *event).abs()
    score_matching_loss(
        model, VPSDE(), normal(500, 2), context=context, pair=(context, [context]), p_drop=0.3, generator=generator()
    )
    dropped = (seen["context"].reshape(500, -1) == 0).all(1)
    assert 0 < dropped.sum() < 500
    expected = context * (~dropped).reshape(-1, *[1] * len(event))
    for part in (seen["context"], seen["pair"][0], seen["pair"][1][0]):
        assert torch.equal(part, expected)


# Times to train at


@pytest.mark.parametrize("low_discrepancy", [False, True])
@pytest.mark.parametrize("uniform_in", ["t", "log_noise"])
@EACH_SDE
def test_each_time_alone_has_the_stated_law(sde, uniform_in, low_discrepancy):
    sample_times = time_sampler(sde, uniform_in=uniform_in, low_discrepancy=low_discrepancy, t_min=0.01)
    first = torch.stack([sample_times(8, generator(seed))[3] for seed in range(2000)]).double()
    ends = torch.tensor([0.01, 1.0], dtype=F64)
    if uniform_in == "log_noise":
        first, ends = (torch.log(sde.sigma(t) / sde.alpha(t)) for t in (first, ends))
    u = (first - ends[0]) / (ends[1] - ends[0])
    assert -1e-5 <= u.min() <= u.max() <= 1 + 1e-5
    assert_mean(u, 0.5)
    assert_mean(u**2, 1 / 3)


@EACH_SDE
def test_low_discrepancy_spreads_the_times_of_a_batch_evenly(sde):
    t = time_sampler(sde, t_min=0.2)(50, generator()).double().sort().values
    torch.testing.assert_close(t.diff(), torch.full((49,), 0.8 / 50, dtype=F64), rtol=1e-3, atol=1e-6)


@EACH_SDE
def test_uniform_log_noise_is_the_importance_sampling_of_the_likelihood_weight(sde):
    def integrand(t):
        return (sde.sigma(t) ** 2) * (1 + t)

    grid = torch.linspace(0.01, 1, 200001, dtype=F64)
    weighted = squared_diffusion(sde, grid) / sde.sigma(grid) ** 2 * integrand(grid)
    expected = torch.trapezoid(weighted, grid)
    low, high = (torch.log(sde.sigma(t) / sde.alpha(t)) for t in (0.01, 1.0))
    t = time_sampler(sde, uniform_in="log_noise", t_min=0.01)(20000, generator()).double()
    torch.testing.assert_close(2 * (high - low) * integrand(t).mean(), expected, rtol=2e-3, atol=0)


@EACH_SDE
def test_log_normal_times_have_a_normal_logarithm_of_their_noise(sde):
    t = log_normal_times(sde, mean=-0.5, std=0.4)(20000, generator())
    assert_moments(torch.log(sde.sigma(t) / sde.alpha(t)), -0.5, 0.4**2)


@EACH_SDE
def test_log_normal_times_stay_in_their_range(sde):
    t = log_normal_times(sde, mean=0.0, std=20.0, t_min=0.1)(1000, generator())
    torch.testing.assert_close(torch.stack([t.min(), t.max()]), torch.tensor([0.1, 1.0], dtype=F64))


@EACH_SDE
def test_the_weight_of_a_score_model_makes_errors_of_its_network_count_alike(sde):
    t = torch.linspace(0.01, 1.0, 7, dtype=F64)
    x = normal(7, 3)
    off, on = (ScoreModel(Recorder(torch.full_like(x, level)), sde, data_std=0.7) for level in (0.0, 1.0))
    error = (on(x, t) - off(x, t)).square().sum(1)
    torch.testing.assert_close(off.weight(t) * error, torch.full((7,), 3.0, dtype=F64))


# Integrating any SDE


MU, VOLATILITY = 0.5, 0.8


def geometric_brownian_motion(x0, n_steps, increments):
    return simulate(
        lambda x, t: MU * x,
        lambda x, t: VOLATILITY * x,
        x0,
        torch.linspace(0, 1, n_steps + 1, dtype=F64),
        increments=increments.reshape(n_steps, -1, *increments.shape[1:]).sum(1),
    )


def order_of(errors):
    """Slope of log2 error over successive halvings of the step, by least squares."""
    y = torch.log2(torch.as_tensor(errors, dtype=F64))
    k = torch.arange(len(y), dtype=F64)
    k = k - k.mean()
    return float(-(k * y).sum() / (k**2).sum())


def test_euler_maruyama_has_strong_order_one_half_and_weak_order_one():
    increments = normal(256, 20000, 1, seed=5) / 16
    x0 = torch.ones(20000, 1, dtype=F64)
    end = torch.exp(MU - 0.5 * VOLATILITY**2 + VOLATILITY * increments.sum(0))
    gaps = {n: geometric_brownian_motion(x0, n, increments) - end for n in (8, 16, 32, 64, 128)}
    assert abs(order_of([gap.abs().mean() for gap in gaps.values()]) - 0.5) < 0.06
    weak_errors = {n: math.exp(MU) - (1 + MU / n) ** n for n in gaps}  # of the mean, in closed form
    assert abs(order_of(list(weak_errors.values())) - 1) < 0.05
    for n, gap in gaps.items():
        assert_mean(gap, -weak_errors[n])


def test_the_chain_has_its_own_exact_moments():
    n_steps, x0 = 10, torch.ones(40000, 1, dtype=F64)
    x = simulate(
        lambda x, t: MU * x,
        lambda x, t: VOLATILITY * x,
        x0,
        torch.linspace(0, 1, n_steps + 1, dtype=F64),
        generator=generator(),
    )
    assert_mean(x, (1 + MU / n_steps) ** n_steps)
    assert_mean(x**2, ((1 + MU / n_steps) ** 2 + VOLATILITY**2 / n_steps) ** n_steps)


@WITH_EVEN_STEPS
def test_additive_noise_has_strong_order_one(sde):
    increments = normal(2048, 200, 1, seed=6) / math.sqrt(2048)
    x0 = normal(200, 1)

    def end(n_steps):
        steps = increments.reshape(n_steps, -1, 200, 1).sum(1)
        times = torch.linspace(0, 1, n_steps + 1, dtype=F64)
        return simulate(sde.drift, lambda x, t: sde.diffusion(t), x0, times, increments=steps)

    finest = end(2048)
    assert abs(order_of([(end(n) - finest).abs().mean() for n in (32, 64, 128, 256)]) - 1) < 0.15


def test_backwards_in_time_the_noise_still_adds():
    times = torch.linspace(1, 0, 11, dtype=F64)
    x = simulate(lambda x, t: torch.ones_like(x), lambda x, t: 2.0, normal(20000, 1), times, generator=generator())
    assert_moments(x, -1.0, 1.0 + 4.0)


def test_one_noise_per_row_stays_with_its_row():
    scale = torch.tensor([0.0, 1.0], dtype=F64)
    x = torch.zeros(2, 2, dtype=F64)
    moved = simulate(lambda x, t: 0 * x, lambda x, t: scale, x, torch.tensor([0.0, 1.0]), generator=generator())
    assert torch.equal(moved[0], x[0])
    assert (moved[1] != 0).all()


# Samplers


def chain_law(sde, grid, data_mean, data_variance, n_corrector_steps=0, snr=0.16, denoise=True):
    """Mean and variance that the sampler has exactly on Gaussian data when it starts from the prior."""
    alpha, sigma = sde.alpha(grid), sde.sigma(grid)
    total = alpha**2 * data_variance + sigma**2
    factor = 1 + grid.diff() * (drift_rate(sde, grid) + squared_diffusion(sde, grid) / total)[:-1]
    pull = -grid.diff() * (squared_diffusion(sde, grid) * alpha * data_mean / total)[:-1]
    noise = -grid.diff() * squared_diffusion(sde, grid)[:-1]
    step = 2 * (snr * sigma) ** 2
    mean, variance = 0.0, sde.prior_std**2
    columns = (factor, pull, noise, alpha[1:], total[1:], step[1:])
    for c, p, v, a, s, e in zip(*(column.tolist() for column in columns), strict=True):
        mean, variance = c * mean + p, c**2 * variance + v
        for _ in range(n_corrector_steps):
            mean, variance = mean - e * (mean - a * data_mean) / s, (1 - e / s) ** 2 * variance + 2 * e
    if denoise:
        gain = float(alpha[-1] * data_variance / total[-1])
        mean, variance = data_mean + gain * (mean - float(alpha[-1]) * data_mean), gain**2 * variance
    return mean, variance


@pytest.mark.parametrize("denoise", [False, True])
@pytest.mark.parametrize("spacing", ["uniform", "karras"])
@EACH_SDE
def test_euler_maruyama_has_the_exact_law_of_its_chain(sde, spacing, denoise):
    grid = sde.time_grid(25, t_min=0.02, spacing=spacing, dtype=F64)
    score = sde.exact_score(GaussianMixture([1.0], torch.tensor([[1.5]], dtype=F64), 0.5**2))
    x = sde.sample_prior((40000, 1), generator=generator(), dtype=F64)
    samples = euler_maruyama(sde, score, x, times=grid, denoise=denoise, generator=generator(3))
    law = chain_law(sde, grid, 1.5, 0.5**2, denoise=denoise)
    assert_moments(samples, *law)


@pytest.mark.parametrize("n_corrector_steps", [1, 3])
@EACH_SDE
def test_predictor_corrector_has_the_exact_law_of_its_chain(sde, n_corrector_steps):
    grid = sde.time_grid(12, t_min=0.05, dtype=F64)
    score = sde.exact_score(GaussianMixture([1.0], torch.tensor([[1.5]], dtype=F64), 0.5**2))
    x = sde.sample_prior((40000, 1), generator=generator(), dtype=F64)
    samples = predictor_corrector(
        sde, score, x, times=grid, n_corrector_steps=n_corrector_steps, snr=0.3, generator=generator(3)
    )
    law = chain_law(sde, grid, 1.5, 0.5**2, n_corrector_steps, snr=0.3)
    assert_moments(samples, *law)


@EACH_SDE
def test_the_law_of_the_chain_approaches_the_marginal_at_first_order(sde):
    truth = float(sde.alpha(0.01) ** 2 * 0.5**2 + sde.sigma(0.01) ** 2)
    grids = [sde.time_grid(n_steps, t_min=0.01, dtype=F64) for n_steps in (2000, 4000, 8000)]
    errors = [abs(chain_law(sde, grid, 0.0, 0.5**2, denoise=False)[1] - truth) for grid in grids]
    assert abs(order_of(errors) - 1) < 0.1


@EACH_SAMPLER
@EACH_SDE
def test_samplers_find_every_mode_in_its_proportion(sde, sampler):
    law = GaussianMixture([0.2, 0.8], torch.tensor([[-2.0, -2.0], [2.0, 2.0]]), 0.25)
    x = sde.sample_prior((4000, 2), generator=generator())
    grid = sde.time_grid(200, spacing="karras")
    samples = sampler(sde, sde.exact_score(law), x, times=grid, generator=generator(1))
    share = mode_weights(samples, law.means)[0]
    assert abs(share - 0.2) <= 4 * math.sqrt(0.2 * 0.8 / 4000)
    near = samples[samples[:, 0] > 0] - 2.0
    assert_moments(near, 0.0, 0.25)


@pytest.mark.parametrize("n_corrector_steps", [0, 1, 4])
@pytest.mark.parametrize("denoise", [False, True])
def test_the_score_is_evaluated_as_often_as_stated(n_corrector_steps, denoise):
    calls = []

    def score(x, t):
        calls.append(t)
        return -x

    predictor_corrector(VPSDE(), score, normal(4, 2), n_steps=7, n_corrector_steps=n_corrector_steps, denoise=denoise)
    assert len(calls) == 7 * (1 + n_corrector_steps) + denoise
    assert all(isinstance(t, torch.Tensor) and t.shape == () for t in calls)


def test_no_corrector_step_is_euler_maruyama():
    sde, x = VPSDE(), normal(10, 2)
    score = sde.exact_score(mixture())
    plain = euler_maruyama(sde, score, x, n_steps=9, generator=generator())
    assert torch.equal(plain, predictor_corrector(sde, score, x, n_steps=9, n_corrector_steps=0, generator=generator()))


@EACH_SAMPLER
@EACH_SDE
def test_no_sample_depends_on_its_batch_mates(sde, sampler):
    score = sde.exact_score(mixture())
    x = sde.sample_prior((6, 2), generator=generator(), dtype=F64)
    other = torch.cat([x[:3], 10 * x[3:]])
    a, b = (sampler(sde, score, start, n_steps=13, generator=generator(1)) for start in (x, other))
    torch.testing.assert_close(a[:3], b[:3], rtol=1e-9, atol=1e-12)
    assert not torch.allclose(a[3:], b[3:])


@EACH_SAMPLER
def test_the_trajectory_starts_at_the_start_and_ends_at_the_samples(sampler):
    sde, x = VPSDE(), normal(5, 2)
    score = sde.exact_score(mixture())
    path = sampler(sde, score, x, n_steps=8, trajectory=True, generator=generator())
    assert path.shape == (9, 5, 2)
    assert torch.equal(path[0], x)
    assert torch.equal(path[-1], sampler(sde, score, x, n_steps=8, generator=generator()))
    raw = sampler(sde, score, x, n_steps=8, denoise=False, trajectory=True, generator=generator())
    assert torch.equal(raw[:-1], path[:-1])
    t_min = torch.tensor(1e-3, dtype=F64)
    torch.testing.assert_close(sde.denoise(score, raw[-1], t_min), path[-1])


@EACH_SAMPLER
def test_a_constraint_holds_after_each_update_at_the_time_reached(sampler):
    reached = []

    def constraint(x, t):
        reached.append(float(t))
        return torch.cat([torch.full_like(x[:, :1], float(t)), x[:, 1:]], 1)

    sde = VPSDE()
    grid = sde.time_grid(5, dtype=F64)
    path = sampler(
        sde, lambda x, t: -x, normal(3, 2), times=grid, constraint=constraint, trajectory=True, generator=generator()
    )
    each = 1 if sampler is euler_maruyama else 2
    assert reached == [*grid[1:].repeat_interleave(each).tolist(), 0.0]
    torch.testing.assert_close(path[1:-1, :, 0], grid[1:-1, None].expand(4, 3))
    assert (path[-1, :, 0] == 0).all()


@EACH_SAMPLER
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, F64])
def test_samplers_keep_the_type_and_leave_the_global_seed_alone(sampler, dtype):
    torch.manual_seed(7)
    state = torch.get_rng_state()
    x = normal(4, 1, 2, 2, dtype=F64).to(dtype)
    samples = [sampler(VPSDE(), lambda x, t: -x, x, n_steps=60, generator=generator()) for _ in range(2)]
    assert samples[0].dtype == dtype
    assert samples[0].shape == x.shape
    assert torch.equal(*samples)
    assert torch.equal(torch.get_rng_state(), state)


@EACH_SAMPLER
def test_sampling_records_no_gradients(sampler):
    network = nn.Linear(2, 2, dtype=F64)
    samples = sampler(VPSDE(), lambda x, t: network(x), normal(4, 2), n_steps=5, generator=generator())
    assert not samples.requires_grad


def test_a_coarse_type_does_not_coarsen_the_times():
    seen = []

    def score(x, t):
        seen.append(float(t))
        return -x

    euler_maruyama(VPSDE(), score, normal(4, 2, dtype=F64).bfloat16(), n_steps=300)
    torch.testing.assert_close(torch.tensor(seen, dtype=F64), VPSDE().time_grid(300, dtype=F64), rtol=1e-6, atol=1e-7)


# What a sampler adds to its score


class CountOperations(TorchDispatchMode):
    """How many operations are done, and how many numbers they leave."""

    def __init__(self):
        super().__init__()
        self.done = torch.zeros(2, dtype=torch.int64)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is not torch.ops.aten.detach.default:
            left = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
            copied = [leaf for leaf in left if not leaf._is_view()]
            self.done += torch.tensor([1, sum(leaf.numel() for leaf in copied)])
        return result


@EACH_SDE
def test_a_step_does_few_operations_on_few_numbers_beside_the_score(sde):
    x = normal(512, 64)

    def done(n_steps):
        with CountOperations() as count:
            euler_maruyama(sde, lambda x, t: x, x, n_steps=n_steps, denoise=False)
        return count.done

    operations, numbers = ((done(60) - done(20)) / 40).tolist()
    assert operations <= 32
    assert numbers <= 10 * x.numel()


# Refusals


def score_of_other_shape(x, t):
    return x[:, :1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: VESDE(0.0, 1.0), "sigma_min must be positive"),
        (lambda: VESDE(0.1, math.inf), "sigma_max must be positive and finite"),
        (lambda: VESDE(2.0, 1.0), "sigma_min must be below sigma_max"),
        (lambda: VPSDE(-0.1, 1.0), "beta_min must be positive"),
        (lambda: VPSDE(2.0, 1.0), "beta_min must not exceed beta_max"),
        (lambda: SubVPSDE(2.0, 1.0), "beta_min must not exceed beta_max"),
        (lambda: VPSDE().sigma(1.5), r"t must lie in \[0, 1\], got values from 1.5"),
        (lambda: VESDE().sigma(-0.1), r"t must lie in \[0, 1\]"),
        (lambda: VESDE().drift(normal(2, 2), 2.0), r"t must lie in \[0, 1\]"),
        (lambda: VESDE().alpha(torch.tensor([0.5, math.nan])), r"t must lie in \[0, 1\]"),
        (lambda: VPSDE().perturb(normal(3, 2), torch.tensor([0.1, 0.2])), r"shape \(3,\), got \(2,\)"),
        (lambda: VPSDE().time_of(-1.0), "noise_to_signal must be non-negative"),
        (lambda: VPSDE().time_of(1e6), r"noise_to_signal must lie in \[0, 152"),
        (lambda: VESDE(0.1, 1.0).time_of(0.05), r"noise_to_signal must lie in \[0.1, 1\]"),
        (lambda: VPSDE().time_grid(0), "n_steps must be a positive integer"),
        (lambda: VPSDE().time_grid(5, t_min=0.0), r"t_min must lie in \(0, 1\)"),
        (lambda: VPSDE().time_grid(5, t_min=1.0), r"t_min must lie in \(0, 1\)"),
        (lambda: VPSDE().time_grid(5, spacing="cosine"), "spacing must be one of"),
        (lambda: VPSDE().denoise(score_of_other_shape, normal(3, 2), 0.5), "score must return shape"),
        (lambda: reverse_drift(VPSDE(), score_of_other_shape, normal(3, 2), 0.5), "score must return shape"),
        (lambda: ScoreModel(nn.Identity(), VPSDE(), data_std=0.0), "data_std must be positive"),
        (lambda: ScoreModel(Recorder(normal(3, 1)), VPSDE())(normal(3, 2), 0.5), "network must return shape"),
        (lambda: ScoreModel(Recorder(normal(3, 2)), VPSDE())(normal(3, 2), 0.0), r"sigma\(t\) must be positive"),
        (lambda: at_noise_scale(linear_score, VESDE(0.1, 1.0))(normal(3, 2), 2.0), "noise_to_signal must lie in"),
        (lambda: time_sampler(VPSDE(), uniform_in="sigma"), "uniform_in must be one of"),
        (lambda: time_sampler(VPSDE(), t_min=0), "t_min must lie"),
        (lambda: log_normal_times(VPSDE(), std=0.0), "std must be positive"),
        (lambda: log_normal_times(VPSDE(), mean=math.nan), "mean must be finite"),
        (lambda: log_normal_times(VPSDE(), t_min=1), "t_min must lie"),
        (lambda: score_matching_loss(linear_score, VPSDE(), normal(3, 2), weighting="snr"), "weighting must be one of"),
        (lambda: score_matching_loss(linear_score, VPSDE(), normal(3, 2), t_min=0.0), "t_min must lie"),
        (lambda: score_matching_loss(linear_score, VPSDE(), normal(3, 2), p_drop=1.5), "p_drop must be a probability"),
        (lambda: score_matching_loss(score_of_other_shape, VPSDE(), normal(3, 2)), "model must return shape"),
        (
            lambda: score_matching_loss(linear_score, VPSDE(), normal(3, 2), labels=torch.zeros(2, dtype=int)),
            r"labels must have shape \(3,\)",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of n_steps and times"),
        ({"n_steps": 5, "times": torch.tensor([1.0, 0.5])}, "exactly one of n_steps and times"),
        ({"n_steps": 5, "t_min": 2.0}, "t_min must lie"),
        ({"n_steps": 0}, "n_steps must be a positive integer"),
        ({"times": torch.tensor([0.1, 0.5])}, "times must decrease"),
        ({"times": torch.tensor([1.0, 0.5, 0.6])}, "times must increase or decrease"),
        ({"times": torch.tensor([1.0])}, "at least two times"),
        ({"times": [1.0, 0.5]}, "times must be a tensor"),
        ({"times": torch.tensor([1.5, 0.5])}, r"t must lie in \[0, 1\]"),
        ({"n_steps": 5, "x": torch.tensor([[math.nan]])}, "x must be finite"),
        ({"n_steps": 5, "score": score_of_other_shape}, "score must return shape"),
    ],
)
@EACH_SAMPLER
def test_bad_arguments_of_a_sampler_are_named(sampler, arguments, message):
    arguments = {"score": linear_score, "x": normal(3, 2)} | arguments
    with pytest.raises(ValueError, match=message):
        sampler(VPSDE(), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"snr": 0.0}, "snr must be positive"),
        ({"n_corrector_steps": -1}, "n_corrector_steps must be a positive integer"),
    ],
)
def test_bad_arguments_of_the_corrector_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        predictor_corrector(VPSDE(), linear_score, normal(3, 2), n_steps=3, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"increments": torch.zeros(3, 3, 2)}, r"increments must have shape \(2, 3, 2\)"),
        ({"drift": lambda x, t: x[:1]}, "drift must return shape"),
        ({"diffusion": lambda x, t: torch.zeros(2)}, r"shape \(3,\), got \(2,\)"),
        ({"times": torch.tensor([0.0, 1.0, 0.5])}, "times must increase or decrease"),
    ],
)
def test_bad_arguments_of_simulate_are_named(arguments, message):
    good = {"drift": linear_score, "diffusion": lambda x, t: 1.0, "times": torch.tensor([0.0, 0.5, 1.0])}
    with pytest.raises(ValueError, match=message):
        simulate(x=normal(3, 2), **(good | arguments))


def test_the_base_class_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        SDE()
