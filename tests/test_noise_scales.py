"""Denoising learns the score of the noised law, and annealing is held against laws that are known in closed form."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from torch import nn

from scorebook.lab.distributions import GaussianMixture
from scorebook.langevin import langevin
from scorebook.noise_scales import (
    annealed_langevin,
    denoising_score_matching_loss,
    geometric_noise_scales,
    suggest_ratio,
    suggest_sigma_max,
    suggest_step_size,
    tweedie,
)

F64 = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=1):
    return torch.randn(shape, generator=generator(seed), dtype=F64)


def assert_mean(values, expected):
    """Assert that independent values have the expected mean, to four standard errors."""
    error = values.std(0) / math.sqrt(len(values))
    assert ((values.mean(0) - expected).abs() <= 4 * error).all(), (values.mean(0), expected, error)


def skewed():
    """Three modes of unequal weight and shape in the plane."""
    covariances = torch.tensor([[[0.5, 0.2], [0.2, 0.3]], [[1.0, -0.4], [-0.4, 0.6]], [[0.1, 0.0], [0.0, 0.2]]])
    return GaussianMixture(
        [0.2, 0.5, 0.3], torch.tensor([[-2.0, 0.0], [1.0, 1.0], [1.5, -2.0]], dtype=F64), covariances.double()
    )


def two_modes():
    return GaussianMixture([0.2, 0.8], torch.tensor([[-5.0, -5.0], [5.0, 5.0]], dtype=F64), 1.0)


def exact(mixture):
    return lambda x, sigma: mixture.diffuse(1.0, sigma).score(x)


def point_mass_score(x, sigma):
    """Score of a noised point at the origin."""
    return -x / sigma.reshape(-1, *[1] * (x.ndim - 1)) ** 2


# Denoising score matching


class Linear(nn.Module):
    """A score ``-a x``, linear as that of a centred Gaussian."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.0, dtype=F64))

    def forward(self, x, sigma):
        return -self.a * x


@given(
    seed=st.integers(0, 2**32),
    event=st.sampled_from([(), (3,), (1, 2, 2)]),
    rowwise=st.booleans(),
    power=st.sampled_from([None, 0.0, 1.5]),
)
@settings(max_examples=40, deadline=None)
def test_the_loss_is_its_formula(seed, event, rowwise, power):
    x = torch.randn(5, *event, generator=generator(seed), dtype=F64)
    sigma = torch.linspace(0.1, 3.0, 5, dtype=F64) if rowwise else torch.tensor(0.7, dtype=F64)
    weighting = "sigma2" if power is None else lambda s: s**power
    loss = denoising_score_matching_loss(
        lambda x, s: torch.sin(x) * s.mean(), x, sigma, weighting=weighting, generator=generator(seed + 1)
    )
    z = torch.randn(x.shape, generator=generator(seed + 1), dtype=F64)
    total = 0.0
    for row, noise, s in zip(x, z, sigma.expand(5), strict=True):
        residual = torch.sin(row + s * noise) * sigma.mean() + noise / s
        total += 0.5 * s ** (2 if power is None else power) * residual.square().sum()
    torch.testing.assert_close(loss, total / 5)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_it_differs_from_the_explicit_loss_by_the_same_amount_for_every_model(sigma):
    mixture, n = skewed(), 50_000
    law, x0 = mixture.diffuse(1.0, sigma), mixture.sample(50_000, generator=generator())
    z = torch.randn(n, 2, generator=generator(5), dtype=F64)
    x = x0 + sigma * z
    best = law.score(x)
    floor = 0.5 * (2 - sigma**2 * best.square().sum(1))
    for model in (lambda x, s: 0 * x, lambda x, s: -x, lambda x, s: exact(mixture)(x, s) + torch.sin(3 * x)):
        denoising = 0.5 * (sigma * model(x, sigma) + z).square().sum(1)
        explicit = 0.5 * (sigma * (model(x, sigma) - best)).square().sum(1)
        assert_mean(denoising - explicit - floor, 0.0)
        loss = denoising_score_matching_loss(model, x0, sigma, generator=generator(5))
        torch.testing.assert_close(loss, denoising.mean())


@pytest.mark.parametrize("sigma", [0.5, 2.0])
@pytest.mark.parametrize("std", [0.4, 3.0])
def test_the_floor_on_a_gaussian_is_its_closed_form(sigma, std):
    dim, n, losses = 3, 4000, []
    for seed in range(25):
        x = std * normal(n, dim, seed=100 + seed)
        losses.append(
            denoising_score_matching_loss(lambda x, s: -x / (std**2 + s**2), x, sigma, generator=generator(200 + seed))
        )
    assert_mean(torch.stack(losses), 0.5 * dim * std**2 / (std**2 + sigma**2))


@pytest.mark.parametrize("sigma", [0.2, 1.0, 5.0])
def test_its_minimum_is_the_score_of_the_noised_law_and_not_of_the_clean_one(sigma):
    std, n, roots = 1.3, 20_000, []
    for seed in range(20):
        x, model = std * normal(n, 1, seed=seed), Linear()
        gradients = []
        for a in (0.0, 1.0):  # the loss is quadratic in a: two slopes give its minimum
            model.a.data.fill_(a)
            loss = denoising_score_matching_loss(model, x, sigma, generator=generator(seed + 50))
            gradients.append(torch.autograd.grad(loss, model.a)[0])
        roots.append(gradients[0] / (gradients[0] - gradients[1]))
    assert_mean(torch.stack(roots), 1 / (std**2 + sigma**2))


def test_the_weight_makes_scales_of_every_size_count_alike():
    x = normal(50_000, 2)
    losses = [
        denoising_score_matching_loss(lambda x, s: 0 * x, x, sigma, generator=generator()).item()
        for sigma in (1e-6, 1.0, 1e6)
    ]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-9)  # d/2, whatever sigma
    assert abs(losses[0] - 1.0) <= 4 / math.sqrt(50_000)


def test_the_loss_trains_a_network_that_knows_sigma():
    mixture = skewed()
    sigma = torch.tensor([0.5, 2.0], dtype=F64)[torch.randint(2, (512,), generator=generator())]
    network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double()

    def model(x, sigma):
        return network(torch.cat([x, sigma.log()[:, None]], 1)) / sigma[:, None]

    denoising_score_matching_loss(
        model, mixture.sample(512, generator=generator()), sigma, generator=generator()
    ).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


# Tweedie's formula


@given(seed=st.integers(0, 2**32), sigma=st.floats(0.05, 20))
@settings(max_examples=40, deadline=None)
def test_tweedie_is_the_posterior_mean(seed, sigma):
    mixture = skewed()
    x = 3 * torch.randn(3, 2, generator=generator(seed), dtype=F64)
    expected = torch.stack([mixture.condition(torch.eye(2), row, sigma).mean for row in x])
    torch.testing.assert_close(tweedie(exact(mixture), x, sigma), expected, rtol=1e-6, atol=1e-7)


def test_tweedie_takes_one_scale_per_row_and_any_event():
    sigma = torch.tensor([0.5, 1.0, 2.0], dtype=F64)
    x = normal(3, 1, 2, 2)
    denoised = tweedie(lambda x, s: -x / (1 + s.reshape(-1, 1, 1, 1) ** 2), x, sigma)
    torch.testing.assert_close(denoised, x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2))


def test_no_estimate_comes_closer_than_tweedie():
    mixture, sigma = skewed(), 1.0
    x0 = mixture.sample(50_000, generator=generator())
    x = x0 + sigma * normal(50_000, 2)
    best = tweedie(exact(mixture), x, sigma)
    error = (x0 - best).square().sum(1)
    # By the law of total variance the error is d sigma^2 minus what the score has taken away.
    assert_mean(error - (2 * sigma**2 - sigma**4 * exact(mixture)(x, sigma).square().sum(1)), 0.0)
    for other in (x, mixture.mean.expand_as(x), best + 0.1 * (x - best), tweedie(exact(mixture), x, 1.2)):
        excess = (x0 - other).square().sum(1) - error
        assert_mean(excess - (other - best).square().sum(1), 0.0)
        assert excess.mean() > 0


# Which scales


@given(low=st.floats(1e-4, 10), ratio=st.floats(1.01, 1e5), n=st.integers(2, 300), tensors=st.booleans())
@settings(max_examples=60, deadline=None)
def test_geometric_scales_have_their_ends_and_one_ratio(low, ratio, n, tensors):
    high = low * ratio
    ends = [torch.tensor(end, dtype=F64) for end in (high, low)] if tensors else (high, low)
    sigmas = geometric_noise_scales(*ends, n, dtype=F64)
    assert sigmas.shape == (n,)
    assert (sigmas[0], sigmas[-1]) == (high, low)
    assert (sigmas.diff() < 0).all()
    torch.testing.assert_close(sigmas[:-1] / sigmas[1:], torch.full((n - 1,), ratio ** (1 / (n - 1)), dtype=F64))


def test_scales_take_the_type_they_are_asked_for():
    assert geometric_noise_scales(20.0, 1.0, 10).dtype == torch.get_default_dtype()
    assert geometric_noise_scales(torch.tensor(20.0, dtype=F64), 1.0, 10).dtype == F64
    assert geometric_noise_scales(torch.tensor(20.0, dtype=F64), 1.0, 10, dtype=torch.float32).dtype == torch.float32


def test_sigma_max_is_the_greatest_distance_of_all_pairs(monkeypatch):
    x = normal(40, 1, 2, 3)
    expected = max((a - b).norm() for a in x for b in x)
    torch.testing.assert_close(suggest_sigma_max(x), expected)
    monkeypatch.setattr("scorebook.noise_scales._LARGEST_CHUNK", 100)  # two rows at a time
    torch.testing.assert_close(suggest_sigma_max(x), expected)


def test_sigma_max_keeps_its_digits_far_from_the_origin():
    x = torch.tensor([[1e6], [1e6 + 0.5], [1e6 + 1.0]], dtype=torch.float32).expand(-1, 30)
    assert suggest_sigma_max(x).item() == pytest.approx(math.sqrt(30), rel=1e-6)


@pytest.mark.parametrize(("dim", "expected", "digits"), [(5, 19.5, 1), (64, 1.361, 3), (3072, 1.040, 3)])
def test_the_ratio_has_its_known_values(dim, expected, digits):
    assert round(suggest_ratio(dim), digits) == expected


@given(dim=st.integers(5, 10**7))
@settings(max_examples=60, deadline=None)
def test_the_ratio_solves_its_equation(dim):
    ratio, root = suggest_ratio(dim), math.sqrt(2 * dim)
    overlap = stats.norm.cdf(root * (ratio - 1) + 3 * ratio) - stats.norm.cdf(root * (ratio - 1) - 3 * ratio)
    assert overlap == pytest.approx(0.5, abs=1e-10)
    assert suggest_ratio(dim + 1) < ratio


def test_the_ratio_in_many_dimensions_is_one_plus_three_over_the_root():
    assert (suggest_ratio(10**8) - 1) * math.sqrt(2e8) == pytest.approx(3, rel=1e-3)


@pytest.mark.parametrize("dim", [64, 3072, 100_000])
def test_the_ratio_puts_half_of_the_samples_in_the_shell_of_the_scale_above(dim):
    ratio, radius = suggest_ratio(dim), stats.chi(dim)
    edges = ratio * (math.sqrt(dim) + 3 / math.sqrt(2) * torch.tensor([-1.0, 1.0], dtype=F64))
    below, above = radius.cdf(edges.numpy())
    # The radius is Gaussian up to its mean and skewness, which move a half by 0.19 over the root of the dimension.
    assert abs(above - below - 0.5) < 0.25 / math.sqrt(dim)


def remaining_variance(e, squared_ratio, n_steps):
    """Variance after the steps at one scale, in units of that scale's, by iterating the steps one by one."""
    variance = squared_ratio
    for _ in range(n_steps):
        variance = (1 - e) ** 2 * variance + 2 * e
    return variance


@given(ratio=st.floats(1.005, 30), n_steps=st.integers(1, 200), low=st.floats(1e-3, 1e3))
@settings(max_examples=60, deadline=None)
def test_the_step_size_minimises_the_variance_that_remains(ratio, n_steps, low):
    sigmas = geometric_noise_scales(low * ratio**3, low, 4, dtype=F64)
    e = suggest_step_size(sigmas, n_steps) / low**2
    searched = optimize.minimize_scalar(
        remaining_variance, bounds=(0, 1), args=(ratio**2, n_steps), method="bounded", options={"xatol": 1e-12}
    )
    assert 0 < e < 1
    assert 1 < remaining_variance(e, ratio**2, n_steps) <= searched.fun * (1 + 1e-9)


def test_the_step_size_of_the_paper_is_found():
    # CIFAR-10 in Song & Ermon (2020), table 2: sigma 50 to 0.01 in 232 scales of 5 steps, epsilon 6.2e-6.
    assert suggest_step_size(geometric_noise_scales(50, 0.01, 232, dtype=F64), 5) == pytest.approx(6.2e-6, rel=0.01)


# Annealed Langevin dynamics


def test_annealing_is_langevin_at_one_scale_after_the_other():
    mixture, sigmas = skewed(), [4.0, 2.0, 0.5]
    start, source = 4 * normal(50, 2), generator(7)
    x = start
    for sigma in sigmas:
        for _ in range(5):
            alpha = 0.03 * sigma**2 / 0.5**2
            z = torch.randn(x.shape, generator=source, dtype=F64)
            x = x + alpha * mixture.diffuse(1.0, sigma).score(x) + math.sqrt(2 * alpha) * z
    settings_ = dict(step_size=0.03, n_steps_each=5)
    ends = annealed_langevin(exact(mixture), start, sigmas, generator=generator(7), denoise=False, **settings_)
    torch.testing.assert_close(ends, x)
    denoised = annealed_langevin(exact(mixture), start, sigmas, generator=generator(7), **settings_)
    torch.testing.assert_close(denoised, x + 0.5**2 * mixture.diffuse(1.0, 0.5).score(x))
    for denoise, last in ((False, ends), (True, denoised)):
        path = annealed_langevin(
            exact(mixture), start, sigmas, generator=generator(7), denoise=denoise, trajectory=True, **settings_
        )
        assert path.shape == (16, 50, 2)
        assert torch.equal(path[0], start)
        assert torch.equal(path[-1], last)
        torch.testing.assert_close(
            path[5],
            langevin(mixture.diffuse(1.0, 4.0).score, start, step_size=0.03 * 64, n_steps=5, generator=generator(7)),
        )


def test_one_scale_is_langevin():
    start = normal(20, 2)
    one = annealed_langevin(
        point_mass_score, start, [0.7], step_size=0.1, n_steps_each=9, denoise=False, generator=generator()
    )
    other = langevin(lambda x: -x / 0.49, start, step_size=0.1, n_steps=9, generator=generator())
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("e", [0.05, 0.5])
def test_the_variance_around_a_point_follows_its_recursion(e):
    sigmas, n_steps = geometric_noise_scales(8.0, 0.5, 5, dtype=F64), 6
    path = annealed_langevin(
        point_mass_score,
        8 * normal(20_000, 1),
        sigmas,
        step_size=e * 0.25,
        n_steps_each=n_steps,
        denoise=False,
        generator=generator(),
        trajectory=True,
    )
    variance = 64.0
    for i, sigma in enumerate(sigmas.tolist()):
        variance = sigma**2 * remaining_variance(e, variance / sigma**2, n_steps)
        values = path[(i + 1) * n_steps]
        assert_mean(values, 0.0)
        assert abs(values.var() - variance) <= 4 * variance * math.sqrt(2 / 20_000)


def share_by_kernels(scales, n_steps):
    """Share above the diagonal for chains from the square: one step after the other on a grid of (x1 + x2)/sqrt 2."""
    r, edge = 5 * math.sqrt(2), 8 * math.sqrt(2)
    grid = torch.linspace(-edge, edge, 401, dtype=F64)
    mass = 1 - grid.abs() / edge
    mass = mass / mass.sum()
    for sigma in scales:
        total, alpha = 1 + sigma**2, 0.05 * sigma**2
        width = round((9 + 10 * sigma) / (0.2 * sigma))
        following = 0.2 * sigma * torch.arange(-width, width + 1, dtype=F64)
        for _ in range(n_steps):
            score = (-grid + r * torch.tanh(r * grid / total + math.log(4) / 2)) / total
            distance = following - (grid + alpha * score)[:, None]
            mass = mass @ torch.softmax(-(distance**2) / (4 * alpha), 1)
            grid = following
    return (mass[grid > 0].sum() + mass[grid == 0].sum() / 2).item()


def test_annealing_finds_the_weights_that_langevin_misses():
    mixture, n = two_modes(), 5000
    start = 16 * torch.rand(n, 2, generator=generator(), dtype=F64) - 8
    sigmas = geometric_noise_scales(20.0, 1.0, 10, dtype=F64)
    shares = {}
    for scales, n_steps in ((sigmas, 100), (torch.ones(1, dtype=F64), 1000)):
        ends = annealed_langevin(
            exact(mixture), start, scales, step_size=0.05, n_steps_each=n_steps, denoise=False, generator=generator(1)
        )
        shares[n_steps] = (ends.sum(1) > 0).double()
        assert_mean(shares[n_steps], share_by_kernels(scales.tolist(), n_steps))
    assert shares[100].mean() > shares[1000].mean() + 0.2


@pytest.mark.parametrize("sigma", [1.0, 0.3])
def test_the_last_step_turns_too_wide_into_too_narrow(sigma):
    std, step = 0.6, 0.02 * sigma**2
    x = math.sqrt(std**2 + sigma**2) * normal(20_000, 1)
    variances = {}
    for denoise in (False, True):
        ends = annealed_langevin(
            lambda x, s: -x / (std**2 + s**2),
            x,
            [sigma],
            step_size=step,
            n_steps_each=100,
            denoise=denoise,
            generator=generator(),
        )
        variances[denoise] = ends.var().item()
    total = std**2 + sigma**2
    noisy = total * remaining_variance(step / total, 1.0, 100)
    assert variances[False] == pytest.approx(noisy, rel=4 * math.sqrt(2 / 20_000))
    assert variances[True] == pytest.approx(noisy * (std**2 / total) ** 2, rel=4 * math.sqrt(2 / 20_000))


def test_a_chain_does_not_know_its_neighbours():
    def run(x, step_size):
        return annealed_langevin(
            exact(skewed()), x, [3.0, 1.0], step_size=step_size, n_steps_each=4, generator=generator(3)
        )

    start, steps = normal(6, 2), torch.tensor([0.01, 0.02, 0.05, 0.1, 0.2, 0.3], dtype=F64)
    other = start.clone()
    other[3:] += 100.0
    torch.testing.assert_close(run(start, steps)[:3], run(other, steps)[:3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_samplers_and_losses_keep_the_type_of_the_points(dtype):
    x = normal(4, 3).to(dtype)
    assert (
        annealed_langevin(
            lambda x, s: -x / (1 + s**2).to(x.dtype),
            x,
            [2.0, 1.0],
            step_size=0.1,
            n_steps_each=2,
            generator=generator(),
        ).dtype
        == dtype
    )
    assert tweedie(lambda x, s: -x, x, 0.5).dtype == dtype
    loss = denoising_score_matching_loss(lambda x, s: -x, x, 0.5, generator=generator())
    assert loss.dtype == torch.promote_types(dtype, torch.float32)  # a sum over a batch of images overflows in half


def test_the_generator_decides_and_the_global_seed_stays():
    before = torch.get_rng_state()
    settings_ = dict(step_size=0.05, n_steps_each=5)
    x = normal(10, 2)
    runs = [annealed_langevin(exact(skewed()), x, [2.0, 1.0], generator=generator(s), **settings_) for s in (1, 1, 2)]
    denoising_score_matching_loss(exact(skewed()), x, 1.0, generator=generator())
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_sampling_leaves_no_graph():
    model = Linear()
    ends = annealed_langevin(model, normal(4, 2), [2.0, 1.0], step_size=0.1, n_steps_each=2, generator=generator())
    assert not ends.requires_grad


# What is refused


def run_annealed(x=None, sigmas=(2.0, 1.0), step_size=0.1, n_steps_each=3, score=lambda x, s: -x):
    x = normal(4, 2) if x is None else x
    return annealed_langevin(score, x, sigmas, step_size=step_size, n_steps_each=n_steps_each, generator=generator())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigmas": [1.0, 2.0]}, "sigmas must decrease"),
        ({"sigmas": [1.0, 1.0]}, "sigmas must decrease"),
        ({"sigmas": [1.0, 0.0]}, "sigmas must be positive"),
        ({"sigmas": [1.0, -1.0]}, "sigmas must be positive"),
        ({"sigmas": [math.inf, 1.0]}, "sigmas must be positive"),
        ({"sigmas": []}, "sigmas must have shape"),
        ({"sigmas": 1.0}, "sigmas must have shape"),
        ({"sigmas": torch.tensor([2, 1])}, "sigmas must be a floating tensor"),
        ({"step_size": 0.0}, "step_size must be positive"),
        ({"step_size": -0.1}, "step_size must be positive"),
        ({"step_size": torch.ones(3, dtype=F64)}, "step_size must be a scalar or have shape"),
        ({"n_steps_each": 0}, "n_steps_each must be a positive integer"),
        ({"n_steps_each": 1.5}, "n_steps_each must be a positive integer"),
        ({"n_steps_each": True}, "n_steps_each must be a positive integer"),
        ({"x": torch.zeros(2, 2, dtype=torch.long)}, "x must be a floating tensor"),
        ({"x": torch.full((2, 2), torch.nan)}, "x must be finite"),
        ({"score": lambda x, s: x[:, :1]}, "score must return shape"),
        ({"score": lambda x, s: 0.0}, "score must return a tensor"),
    ],
)
def test_the_sampler_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        run_annealed(**arguments)


def test_a_diverging_chain_says_where():
    with pytest.raises(RuntimeError, match=r"diverged at step \d+ of 2000") as caught:
        run_annealed(
            score=lambda x, s: -x / s**2 if s > 1.5 else -x,
            sigmas=[2.0, 1.0],
            step_size=2.1,
            n_steps_each=2000,
            x=torch.ones(3, 2),
        )
    assert "noise scale 1 of 2" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: geometric_noise_scales(1.0, 2.0, 5), "sigma_max must exceed sigma_min"),
        (lambda: geometric_noise_scales(1.0, 1.0, 5), "sigma_max must exceed sigma_min"),
        (lambda: geometric_noise_scales(1.0, 0.0, 5), "sigma_min must be positive"),
        (lambda: geometric_noise_scales(-1.0, 0.1, 5), "sigma_max must be positive"),
        (lambda: geometric_noise_scales(torch.ones(2), 0.1, 5), "sigma_max must be one number"),
        (lambda: geometric_noise_scales(1.0, 0.1, 1), "n must be at least 2"),
        (lambda: geometric_noise_scales(1.0, 0.1, 2.5), "n must be a positive integer"),
        (lambda: suggest_sigma_max(torch.zeros(1, 2)), "data must hold at least two points"),
        (lambda: suggest_sigma_max(torch.tensor(4.0)), "data must hold at least two points"),
        (lambda: suggest_sigma_max(torch.zeros(3, 0)), "data must hold at least two points"),
        (lambda: suggest_sigma_max(torch.zeros(4)), "data must hold two different points"),
        (lambda: suggest_sigma_max(torch.full((30, 2), 0.1)), "data must hold two different points"),
        (lambda: suggest_sigma_max(torch.tensor([[1.0], [torch.nan]])), "data must be finite"),
        (lambda: suggest_sigma_max(torch.zeros(3, 2, dtype=torch.long)), "data must be a floating tensor"),
        (lambda: suggest_ratio(4), "dim must be at least 5"),
        (lambda: suggest_ratio(1), "dim must be at least 5"),
        (lambda: suggest_ratio(0), "dim must be a positive integer"),
        (lambda: suggest_ratio(64.0), "dim must be a positive integer"),
        (lambda: suggest_step_size([1.0, 2.0], 5), "sigmas must decrease"),
        (lambda: suggest_step_size([1.0], 5), "sigmas must have shape"),
        (lambda: suggest_step_size([4.0, 2.0, 1.5], 5), "sigmas must have a common ratio"),
        (lambda: suggest_step_size([4.0, 2.0], 0), "n_steps_each must be a positive integer"),
        (lambda: tweedie(lambda x, s: x, torch.ones(2, 2), 0.0), "sigma must be positive"),
        (lambda: tweedie(lambda x, s: x[0], torch.ones(2, 2), 1.0), "score must return shape"),
        (lambda: tweedie(lambda x, s: x, torch.ones(2, 2), torch.ones(3)), "one value per row"),
        (lambda: denoising_score_matching_loss(lambda x, s: x, torch.ones(2, 2), -1.0), "sigma must be positive"),
        (lambda: denoising_score_matching_loss(lambda x, s: x[0], torch.ones(2, 2), 1.0), "model must return shape"),
        (
            lambda: denoising_score_matching_loss(lambda x, s: x, torch.ones(2, 2), 1.0, weighting="likelihood"),
            "weighting must be one of",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
