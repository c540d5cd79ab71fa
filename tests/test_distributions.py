"""Gaussian mixtures are held against scipy, torch, autograd, Bayes' rule on a grid, and themselves."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from scorebook.lab.distributions import GaussianMixture, RowwiseMixture

F64 = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def make(kind="full", *, n_components=3, dim=2, seed=0, dtype=F64):
    g = generator(seed)
    weights = torch.rand(n_components, generator=g, dtype=dtype) + 0.2
    means = 2 * torch.randn(n_components, dim, generator=g, dtype=dtype)
    if kind == "isotropic":
        covariances = torch.rand(n_components, generator=g, dtype=dtype) + 0.3
    else:
        root = torch.randn(n_components, dim, dim, generator=g, dtype=dtype)
        covariances = root @ root.mT + 0.2 * torch.eye(dim, dtype=dtype)
    return GaussianMixture(weights / weights.sum(), means, covariances)


def points(n, dim=2, seed=7, scale=3.0, dtype=F64):
    return scale * torch.randn(n, dim, generator=generator(seed), dtype=dtype)


def full_covariances(mixture):
    if mixture.covariances.ndim == 3:
        return mixture.covariances
    return mixture.covariances[:, None, None] * torch.eye(mixture.dim, dtype=mixture.dtype)


def grid(extent, n):
    axis = torch.linspace(-extent, extent, n, dtype=F64)
    return torch.cartesian_prod(axis, axis), (axis[1] - axis[0]) ** 2


def assert_mean_within_four_standard_errors(values, expected):
    error = values.std(0) / math.sqrt(len(values))
    assert ((values.mean(0) - expected).abs() <= 4 * error).all()


KINDS = pytest.mark.parametrize("kind", ["full", "isotropic"])


# Density and score


@KINDS
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_density_is_scipys(kind, dim):
    mixture, x = make(kind, dim=dim), points(50, dim)
    expected = sum(
        float(w) * multivariate_normal(m.numpy(), c.numpy()).pdf(x.numpy())
        for w, m, c in zip(mixture.weights, mixture.means, full_covariances(mixture), strict=True)
    )
    np.testing.assert_allclose(mixture.log_prob(x).exp().numpy(), np.atleast_1d(expected), rtol=1e-11)


@KINDS
def test_density_is_torchs(kind):
    mixture, x = make(kind, dim=4), points(50, 4)
    reference = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(mixture.weights),
        torch.distributions.MultivariateNormal(mixture.means, full_covariances(mixture)),
    )
    torch.testing.assert_close(mixture.log_prob(x), reference.log_prob(x), rtol=1e-11, atol=1e-11)


@KINDS
def test_density_integrates_to_one(kind):
    x, cell = grid(14.0, 401)
    assert float(make(kind).log_prob(x).exp().sum() * cell) == pytest.approx(1, abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(
    kind=st.sampled_from(["full", "isotropic"]),
    n_components=st.integers(1, 5),
    dim=st.integers(1, 6),
    seed=st.integers(0, 10_000),
    alpha=st.floats(0.01, 2.0),
    sigma=st.floats(0.01, 10.0),
)
def test_score_is_the_gradient_of_log_prob(kind, n_components, dim, seed, alpha, sigma):
    mixture = make(kind, n_components=n_components, dim=dim, seed=seed)
    rows = torch.linspace(0.5, 1, 6, dtype=F64)
    for law in (mixture, mixture.diffuse(alpha, sigma), mixture.diffuse(alpha * rows, sigma)):
        x = points(6, dim, seed=seed + 1).requires_grad_()
        (gradient,) = torch.autograd.grad(law.log_prob(x).sum(), x)
        torch.testing.assert_close(law.score(x.detach()), gradient, rtol=1e-9, atol=1e-9)


@KINDS
def test_log_prob_can_be_differentiated_twice(kind):
    mixture = make(kind)
    x = points(3).requires_grad_()
    hessian = torch.stack([torch.autograd.functional.hessian(lambda v: mixture.log_prob(v[None])[0], v) for v in x])
    jacobian = torch.stack([torch.autograd.functional.jacobian(lambda v: mixture.score(v[None])[0], v) for v in x])
    torch.testing.assert_close(hessian, jacobian)


@KINDS
def test_responsibilities_are_bayes_rule_over_components(kind):
    mixture, x = make(kind), points(30)
    alone = [GaussianMixture([1.0], mixture.means[k : k + 1], mixture.covariances[k : k + 1]) for k in range(3)]
    joint = torch.stack([w * law.log_prob(x).exp() for w, law in zip(mixture.weights, alone, strict=True)], -1)
    torch.testing.assert_close(mixture.responsibilities(x), joint / joint.sum(-1, keepdim=True))


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_far_from_every_mode_all_is_finite_and_the_nearest_pull_wins(kind, dtype):
    mixture = make(kind).to(dtype)
    x = torch.tensor([[1e6, 1e6], [-1e6, 3e5]], dtype=dtype)
    assert torch.isfinite(mixture.log_prob(x)).all()
    score, responsibilities = mixture.score(x), mixture.responsibilities(x)
    assert ((score * x).sum(-1) < 0).all()
    winner = responsibilities.argmax(-1)
    pulls = torch.linalg.solve(full_covariances(mixture)[winner], (mixture.means[winner] - x).unsqueeze(-1))
    torch.testing.assert_close(score, pulls.squeeze(-1), rtol=1e-4, atol=0)


@pytest.mark.parametrize("sigma", [0.005, 0.3])
@pytest.mark.parametrize("rowwise", [False, True])
def test_many_centres_agree_with_the_plain_formula(sigma, rowwise):
    """An empirical law of 1200 centres takes the path of matrix products; float32 must not cancel in it."""
    centres = (torch.rand(1200, 64, generator=generator()) * 2 - 1).float()
    scaled = 0.7 * centres.double()
    x = (scaled[:300] + sigma * torch.randn(300, 64, generator=generator(1), dtype=F64)).float()
    level = torch.full((300,), sigma, dtype=F64) if rowwise else sigma
    law = GaussianMixture(torch.full((1200,), 1 / 1200), centres, 1e-12).diffuse(0.7, level)
    logits = -0.5 * torch.cdist(x.double(), scaled, compute_mode="donot_use_mm_for_euclid_dist") ** 2 / sigma**2
    expected = (logits.softmax(-1) @ scaled - x) / sigma**2
    # Float32 rounds the centres, by at most 4e-8, before their distance is divided by sigma^2.
    torch.testing.assert_close(law.score(x).double(), expected, rtol=1e-5, atol=1e-7 / sigma**2)
    log_prob = logits.logsumexp(-1) - math.log(1200) - 32 * math.log(2 * math.pi * sigma**2)
    torch.testing.assert_close(law.log_prob(x).double(), log_prob, rtol=1e-5, atol=1e-3)


def test_a_component_of_weight_zero_is_not_there():
    one = GaussianMixture([1.0], [[1.0, 2.0]], 0.5)
    two = GaussianMixture([1.0, 0.0], [[1.0, 2.0], [0.0, 0.0]], 0.5)
    x = points(20, dtype=torch.float32).requires_grad_()
    torch.testing.assert_close(two.log_prob(x), one.log_prob(x))
    torch.testing.assert_close(two.score(x), one.score(x))
    (gradient,) = torch.autograd.grad(two.log_prob(x).sum(), x)
    torch.testing.assert_close(gradient, one.score(x))
    assert (two.sample(1000, generator=generator(), labels=True)[1] == 0).all()


def test_a_uniform_number_on_an_edge_picks_the_component_that_begins_there(monkeypatch):
    mixture = GaussianMixture([0.0, 0.5, 0.0, 0.5], torch.zeros(4, 2), 1.0)
    monkeypatch.setattr(torch, "rand", lambda *shape, **options: torch.tensor([0.0, 0.5]))
    assert mixture.sample(2, labels=True)[1].tolist() == [1, 3]


def test_one_variance_serves_every_component():
    means = points(3)
    same = GaussianMixture([0.2, 0.3, 0.5], means, 0.7)
    matrices = GaussianMixture([0.2, 0.3, 0.5], means, 0.7 * torch.eye(2).expand(3, 2, 2))
    x = points(20)
    torch.testing.assert_close(same.log_prob(x), matrices.log_prob(x), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(same.score(x), matrices.score(x), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(same.covariance, matrices.covariance, rtol=1e-6, atol=1e-6)


# Samples


@KINDS
def test_samples_have_the_mean_and_covariance_that_the_mixture_states(kind):
    mixture = make(kind, dim=3)
    x = mixture.sample(20_000, generator=generator())
    assert_mean_within_four_standard_errors(x, mixture.mean)
    centred = x - mixture.mean
    products = centred.unsqueeze(-1) * centred.unsqueeze(-2)
    assert_mean_within_four_standard_errors(products.flatten(1), mixture.covariance.flatten())


@KINDS
def test_labels_say_which_component_each_point_came_from(kind):
    mixture = make(kind)
    x, labels = mixture.sample(20_000, generator=generator(), labels=True)
    for k in range(3):
        assert_mean_within_four_standard_errors((labels == k).to(F64), mixture.weights[k])
        assert_mean_within_four_standard_errors(x[labels == k], mixture.means[k])
        centred = x[labels == k] - mixture.means[k]
        products = (centred.unsqueeze(-1) * centred.unsqueeze(-2)).flatten(1)
        assert_mean_within_four_standard_errors(products, full_covariances(mixture)[k].flatten())


@KINDS
def test_fisher_information_by_samples_is_minus_the_mean_hessian(kind):
    """E[s s^T] = -E[grad s] joins samples, score and density in one identity."""
    mixture = make(kind, dim=1)
    x = mixture.sample(20_000, generator=generator()).requires_grad_()
    score = mixture.score(x)
    (slope,) = torch.autograd.grad(score.sum(), x)
    assert_mean_within_four_standard_errors((score.square() + slope).detach(), 0.0)


def test_samples_repeat_with_the_generator_and_leave_the_global_seed_alone():
    mixture = make()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    torch.testing.assert_close(mixture.sample(9, generator=generator(3)), mixture.sample(9, generator=generator(3)))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(mixture.sample(9, generator=generator(3)), mixture.sample(9, generator=generator(4)))


def test_sampling_in_chunks_is_sampling_at_once(monkeypatch):
    mixture = make(dim=4)
    at_once = mixture.sample(101, generator=generator())
    monkeypatch.setattr("scorebook.lab.distributions._LARGEST_GATHER", 10 * 16)
    torch.testing.assert_close(mixture.sample(101, generator=generator()), at_once, rtol=1e-12, atol=1e-12)


# Noise


@KINDS
def test_diffused_law_is_the_law_of_noised_samples(kind):
    mixture, alpha, sigma = make(kind), 0.6, 0.8
    law = mixture.diffuse(alpha, sigma)
    noisy = alpha * mixture.sample(20_000, generator=generator())
    noisy = noisy + sigma * torch.randn(noisy.shape, generator=generator(1), dtype=F64)
    assert_mean_within_four_standard_errors(noisy, law.mean)
    for frequency in torch.tensor([[0.5, 0.0], [0.0, 0.7], [0.6, -0.9]], dtype=F64):
        exponent = -0.5 * ((full_covariances(law) @ frequency) @ frequency)
        expected = (law.weights * exponent.exp() * (law.means @ frequency).cos()).sum()
        assert_mean_within_four_standard_errors((noisy @ frequency).cos(), expected)


@KINDS
def test_diffused_density_is_the_average_kernel(kind):
    """p_t(x) = E[N(x; alpha x0, sigma^2 I)] over x0 from the mixture, by plain Monte Carlo."""
    mixture, alpha, sigma = make(kind), 0.6, 0.8
    x = points(5, scale=1.0)
    mean = alpha * mixture.sample(20_000, generator=generator())
    squared = (x - mean.unsqueeze(1)).square().sum(-1)
    kernel = (-squared / (2 * sigma**2)).exp() / (2 * math.pi * sigma**2)
    assert_mean_within_four_standard_errors(kernel, mixture.diffuse(alpha, sigma).log_prob(x).exp())


@KINDS
@pytest.mark.parametrize("rowwise", [False, True])
def test_noise_added_twice_is_noise_added_once(kind, rowwise):
    mixture, x = make(kind), points(20)
    second = torch.linspace(0.1, 1.5, 20, dtype=F64) if rowwise else torch.tensor(0.3, dtype=F64)
    twice = mixture.diffuse(0.9, 0.5).diffuse(0.7, second)
    once = mixture.diffuse(0.63, (0.7**2 * 0.5**2 + second**2).sqrt())
    torch.testing.assert_close(twice.log_prob(x), once.log_prob(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(twice.score(x), once.score(x), rtol=1e-12, atol=1e-12)
    again = mixture.diffuse(0.9, torch.full((20,), 0.5)).diffuse(0.7, second)
    torch.testing.assert_close(again.score(x), once.score(x), rtol=1e-7, atol=1e-7)


@KINDS
def test_one_noise_level_per_row_is_a_loop_over_rows(kind):
    mixture, x = make(kind), points(20)
    alpha, sigma = torch.linspace(0.1, 1.2, 20, dtype=F64), torch.linspace(3, 0.01, 20, dtype=F64)
    law = mixture.diffuse(alpha, sigma)
    alone = [mixture.diffuse(a, s) for a, s in zip(alpha, sigma, strict=True)]
    for name in ("log_prob", "score", "responsibilities"):
        expected = torch.cat([getattr(one, name)(row[None]) for one, row in zip(alone, x, strict=True)])
        torch.testing.assert_close(getattr(law, name)(x), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(law.mean, torch.stack([one.mean for one in alone]))
    torch.testing.assert_close(law.covariance, torch.stack([one.covariance for one in alone]))


@pytest.mark.parametrize(("alpha", "sigma"), [("rows", 0.5), (0.5, "rows"), ("rows", "rows")])
def test_a_scalar_beside_one_value_per_row_serves_every_row(alpha, sigma):
    rows = torch.linspace(0.2, 1, 20, dtype=F64)
    alpha, sigma = (rows if v == "rows" else v for v in (alpha, sigma))
    ones = torch.ones(20, dtype=F64)
    mixture, x = make(), points(20)
    torch.testing.assert_close(
        mixture.diffuse(alpha, sigma).score(x), mixture.diffuse(alpha * ones, sigma * ones).score(x)
    )


@KINDS
def test_diffuse_changes_covariances_as_it_says(kind):
    law = make(kind).diffuse(0.5, 2.0)
    expected = 0.25 * full_covariances(make(kind)) + 4 * torch.eye(2, dtype=F64)
    torch.testing.assert_close(full_covariances(law), expected)
    rebuilt = GaussianMixture(law.weights, law.means, law.covariances)
    torch.testing.assert_close(law.score(points(9)), rebuilt.score(points(9)))
    assert law.covariances.shape == make(kind).covariances.shape


def test_rowwise_samples_follow_their_own_law():
    mixture = make(n_components=1)
    alpha, sigma = torch.tensor([0.2, 1.0], dtype=F64), torch.tensor([2.0, 0.1], dtype=F64)
    law = mixture.diffuse(alpha.repeat(5000), sigma.repeat(5000))
    x = law.sample(10_000, generator=generator()).unflatten(0, (5000, 2))
    for row in range(2):
        alone = mixture.diffuse(alpha[row], sigma[row])
        centred = x[:, row] - alone.mean
        products = (centred.unsqueeze(-1) * centred.unsqueeze(-2)).flatten(1)
        assert_mean_within_four_standard_errors(x[:, row], alone.mean)
        assert_mean_within_four_standard_errors(products, alone.covariance.flatten())


def test_the_law_can_be_differentiated_in_the_noise_level():
    """Heat equation: with alpha = 1, d p / d(sigma^2) is half the Laplacian of p."""
    mixture, x = make(), points(5)
    variance = torch.tensor(0.7, dtype=F64)

    def density(x, variance):
        return mixture.diffuse(1.0, variance.sqrt()).log_prob(x[None]).exp()[0]

    for row in x:
        rate = torch.autograd.functional.jacobian(lambda v, row=row: density(row, v), variance)
        hessian = torch.autograd.functional.hessian(lambda v: density(v, variance), row)
        torch.testing.assert_close(rate, 0.5 * hessian.trace())


# Posterior


def observation(m, dim, seed=3):
    g = generator(seed)
    return torch.randn(m, dim, generator=g, dtype=F64), torch.randn(m, generator=g, dtype=F64)


@KINDS
@pytest.mark.parametrize("m", [1, 2, 3])
def test_posterior_is_prior_times_likelihood_on_a_grid(kind, m):
    mixture, noise_std = make(kind), 0.4
    A, y = observation(m, 2)
    x, cell = grid(12.0, 301)
    likelihood = (-(y - x @ A.mT).square().sum(-1) / (2 * noise_std**2)).exp()
    joint = mixture.log_prob(x).exp() * likelihood
    density = joint / (joint.sum() * cell)
    posterior = mixture.condition(A, y, noise_std)
    torch.testing.assert_close(posterior.log_prob(x).exp(), density, rtol=1e-6, atol=1e-9)


@KINDS
@pytest.mark.parametrize("noise_std", [1e-5, 0.1, 2.0])
@pytest.mark.parametrize("m", [1, 2, 4, 7])
def test_posterior_score_is_bayes_rule_for_scores(kind, m, noise_std):
    mixture = make(kind, dim=4)
    A, y = observation(m, 4)
    posterior, x = mixture.condition(A, y, noise_std), points(20, 4)
    expected = mixture.score(x) + (y - x @ A.mT) @ A / noise_std**2
    error = (posterior.score(x) - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert error.max() < 1e-8


@KINDS
def test_posterior_agrees_with_weighted_prior_samples(kind):
    mixture, noise_std = make(kind), 0.7
    A, y = observation(1, 2)
    posterior = mixture.condition(A, y, noise_std)
    x = mixture.sample(20_000, generator=generator())
    weights = (-(y - x @ A.mT).square().sum(-1, keepdim=True) / (2 * noise_std**2)).exp()
    weights = weights / weights.mean()
    assert_mean_within_four_standard_errors(weights * (x - posterior.mean), 0.0)
    centred = x - posterior.mean
    products = (centred.unsqueeze(-1) * centred.unsqueeze(-2)).flatten(1)
    assert_mean_within_four_standard_errors(weights * (products - posterior.covariance.flatten()), 0.0)


def test_two_observations_in_turn_are_both_at_once():
    mixture, x = make(dim=4), points(20, 4)
    A, y = observation(3, 4)
    at_once = mixture.condition(A, y, 0.3)
    in_turn = mixture.condition(A[:1], y[:1], 0.3).condition(A[1:], y[1:], 0.3)
    torch.testing.assert_close(in_turn.log_prob(x), at_once.log_prob(x))


def test_an_exact_observation_of_a_gaussian_leaves_the_textbook_conditional():
    """Correlation 0.9 and second coordinate 1.5: mean 1.35 and variance 0.19."""
    prior = GaussianMixture([1.0], torch.zeros(1, 2, dtype=F64), [[[1.0, 0.9], [0.9, 1.0]]])
    posterior = prior.condition([[0.0, 1.0]], [1.5], 0.0)
    torch.testing.assert_close(posterior.mean, torch.tensor([1.35, 1.5], dtype=F64), rtol=1e-7, atol=1e-7)
    expected = torch.tensor([[0.19, 0.0], [0.0, 0.0]], dtype=F64)
    torch.testing.assert_close(posterior.covariance, expected, rtol=1e-7, atol=1e-7)
    assert torch.allclose(posterior.sample(100, generator=generator())[:, 1], torch.tensor(1.5, dtype=F64))


@KINDS
@pytest.mark.parametrize("m", [1, 2, 3])
def test_an_exact_observation_is_the_limit_of_small_noise(kind, m):
    mixture = make(kind, dim=3)
    A, y = observation(m, 3)
    exact, nearly = mixture.condition(A, y, 0.0), mixture.condition(A, y, 1e-5)
    torch.testing.assert_close(exact.weights, nearly.weights, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(exact.mean, nearly.mean, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(A @ exact.sample(50, generator=generator()).mT, y[:, None].expand(m, 50))
    x = points(20, 3)
    torch.testing.assert_close(
        exact.diffuse(0.8, 0.5).score(x), nearly.diffuse(0.8, 0.5).score(x), rtol=1e-6, atol=1e-6
    )


def test_a_law_on_a_subspace_refuses_a_density_until_it_is_diffused():
    posterior = make().condition([[1.0, 0.0]], [0.5], 0.0)
    for method in (posterior.log_prob, posterior.score, posterior.responsibilities):
        with pytest.raises(ValueError, match=r"no density.*diffuse"):
            method(points(3))
    with pytest.raises(ValueError, match="no density"):
        posterior.diffuse(0.5, 0.0).score(points(3))
    with pytest.raises(ValueError, match="no density"):
        posterior.diffuse(0.5, torch.tensor([0.0, 1.0, 1.0])).to(F64).score(points(3))
    for least in (0.1, 1e-6):  # however little noise there is, across the line the law is its normal one
        x = torch.tensor([[0.25 + 2 * least, 0.3]], dtype=F64)
        for sigma in (least, torch.tensor([least], dtype=F64)):
            assert posterior.diffuse(0.5, sigma).score(x)[0, 0].item() == pytest.approx(-2 / least, rel=1e-6)
    with pytest.raises(ValueError, match="no density"):
        posterior.condition([[0.0, 1.0]], [0.5], 0.1).score(points(3))
    with pytest.raises(ValueError, match="already lies on a subspace"):
        posterior.condition([[0.0, 1.0]], [0.5], 0.0)


def test_float32_posterior_keeps_a_precision_beyond_its_own_rounding():
    prior = make(dim=4, dtype=torch.float32)
    A, y = observation(2, 4)
    posterior = prior.condition(A, y, 1e-4)
    reference = prior.to(F64).condition(A.float(), y.float(), 1e-4)
    torch.testing.assert_close(posterior._spectrum.double(), reference._spectrum, rtol=1e-4, atol=0)
    torch.testing.assert_close(posterior.mean.double(), reference.mean, rtol=1e-4, atol=1e-4)


# Types, devices, errors


@KINDS
def test_result_has_the_type_of_x(kind):
    for law in (make(kind), make(kind, dtype=torch.float32), make(kind).diffuse(0.5, torch.full((4,), 0.5))):
        for dtype in (torch.float32, F64):
            x = points(4, dtype=dtype)
            assert {law.log_prob(x).dtype, law.score(x).dtype, law.responsibilities(x).dtype} == {dtype}
            torch.testing.assert_close(law.score(x).double(), law.to(F64).score(x.double()), rtol=1e-3, atol=1e-3)


@KINDS
def test_everything_runs_on_the_meta_device(kind):
    given = make(kind)
    on_meta = GaussianMixture(given.weights.to("meta"), given.means.to("meta"), given.covariances.to("meta"))
    for mixture in (on_meta, given.to("meta")):
        x = points(5).to("meta")
        rows = torch.rand(5, device="meta", dtype=F64)
        A, y = (v.to("meta") for v in observation(1, 2))
        posterior = mixture.condition(A, y, 0.1)
        for law in (mixture, mixture.diffuse(0.5, rows[0]), mixture.diffuse(rows, 0.5), posterior):
            assert law.score(x).shape == (5, 2)
            assert law.log_prob(x).shape == (5,)
            assert law.responsibilities(x).shape == (5, 3)
            assert law.sample(5, generator=generator()).device.type == "meta"
            assert {law.mean.device.type, law.covariance.device.type} == {"meta"}
    large = GaussianMixture(torch.full((1000,), 1e-3), torch.zeros(1000, 64), 1.0).to("meta")
    assert large.score(torch.empty(100, 64, device="meta")).shape == (100, 64)


def test_plain_lists_and_numpy_arrays_are_welcome():
    listed = GaussianMixture([0.5, 0.5], [[0, 0], [1, 1]], 1)
    assert listed.dtype == torch.float32
    arrays = GaussianMixture(np.array([0.5, 0.5]), np.array([[0.0, 0], [1, 1]]), np.ones(2))
    assert arrays.dtype == F64
    assert repr(arrays) == "GaussianMixture(2 isotropic components in 2 dimensions, float64, cpu)"
    assert isinstance(arrays.diffuse(1.0, torch.ones(3)), RowwiseMixture)


def test_weights_rounded_to_float32_pass_in_float64_and_are_normalised():
    weights = torch.tensor([0.1, 0.2, 0.7]).double()
    mixture = GaussianMixture(weights, points(3), 1.0)
    responsibilities = mixture.responsibilities(points(4))
    torch.testing.assert_close(responsibilities.sum(-1), torch.ones(4, dtype=F64), rtol=1e-14, atol=1e-14)
    x, cell = grid(14.0, 401)
    assert float(mixture.log_prob(x).exp().sum() * cell) == pytest.approx(1, abs=1e-12)


MEANS = [[0.0, 0.0], [1.0, 1.0]]
EYES = torch.eye(2).repeat(2, 1, 1)


@pytest.mark.parametrize(
    ("weights", "means", "covariances", "message"),
    [
        ([0.5, 0.4], MEANS, 1.0, r"weights must sum to one within 3e-04, got 0\.9$"),
        ([1.5, -0.5], MEANS, 1.0, r"weights must be non-negative and finite, got -0\.5"),
        ([math.nan, 1.0], MEANS, 1.0, r"weights must be non-negative and finite, got nan"),
        ([1.0], MEANS, 1.0, r"weights must have shape \(2,\), got \(1,\)"),
        ([0.5, 0.5], [0.0, 1.0], 1.0, r"means must have shape \(K, d\).*got \(2,\)"),
        ([], torch.zeros(0, 2), 1.0, r"means must have shape \(K, d\).*got \(0, 2\)"),
        ([0.5, 0.5], [[0.0, math.inf], [1.0, 1.0]], 1.0, r"means must be finite, got inf"),
        ([0.5, 0.5], torch.zeros(2, 2, dtype=torch.float16), 1.0, r"means must be of type float32 or float64"),
        ([0.5, 0.5], MEANS, 0.0, r"covariances must be positive and finite, got 0"),
        ([0.5, 0.5], MEANS, [1.0, -1.0], r"covariances must be positive and finite, got -1"),
        ([0.5, 0.5], MEANS, [1.0, 1.0, 1.0], r"covariances must have shape \(2,\), got \(3,\)"),
        ([0.5, 0.5], MEANS, torch.eye(2), r"covariances must have shape \(2, 2, 2\).*got \(2, 2\)"),
        ([0.5, 0.5], MEANS, EYES * math.nan, r"covariances must be finite, got nan"),
        (
            [0.5, 0.5],
            MEANS,
            [[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.5], [0.2, 1.0]]],
            r"covariances\[1\] must be symmetric positive definite, got .*transpose by 0\.3",
        ),
        (
            [0.5, 0.5],
            MEANS,
            [[[1.0, 0.0], [0.0, 1.0]], [[1.0, 2.0], [2.0, 1.0]]],
            r"covariances\[1\] must be symmetric positive definite, got .*between -1 and 3",
        ),
        (
            [0.5, 0.5],
            MEANS,
            [[[0.01, 0.03], [0.03, 0.09]], [[1.0, 0.0], [0.0, 1.0]]],
            r"covariances\[0\] must be symmetric positive definite",
        ),
    ],
)
def test_a_mixture_refuses_what_is_not_one(weights, means, covariances, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(weights, means, covariances)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.score(torch.zeros(2)), r"x must have shape \(B, 2\), got \(2,\)"),
        (lambda m: m.log_prob(torch.zeros(4, 3)), r"x must have shape \(B, 2\), got \(4, 3\)"),
        (lambda m: m.log_prob(torch.zeros(4, 2, dtype=torch.int64)), r"x must be a floating tensor"),
        (lambda m: m.score(torch.zeros(4, 2, device="meta")), r"x is on meta and the mixture on cpu"),
        (lambda m: m.sample(0), r"n must be a positive integer, got 0"),
        (lambda m: m.diffuse(1.0, -0.1), r"sigma must be non-negative and finite, got -0\.1"),
        (lambda m: m.diffuse(math.nan, 0.1), r"alpha must be finite, got nan"),
        (lambda m: m.diffuse(0.0, 0.0), r"alpha and sigma must not both be zero"),
        (lambda m: m.diffuse(torch.zeros(2), torch.eye(2)[0]), r"alpha and sigma must not both be zero"),
        (lambda m: m.diffuse(1.0, torch.ones(2, 1)), r"sigma must be a scalar or have shape \(B,\), got \(2, 1\)"),
        (lambda m: m.diffuse(torch.ones(2), torch.zeros(3)), r"alpha and sigma must .*\(2,\) and \(3,\)"),
        (lambda m: m.diffuse(1.0, torch.ones(3)).score(torch.zeros(2, 2)), r"x must have 3 rows.*got 2"),
        (lambda m: m.diffuse(1.0, torch.ones(3)).sample(2), r"n must be 3.*got 2"),
        (lambda m: m.diffuse(1.0, torch.ones(3)).diffuse(1.0, -1.0), r"sigma must be non-negative"),
        (lambda m: m.condition([1.0, 0.0], [1.0], 0.1), r"A must have shape \(m, 2\).*got \(2,\)"),
        (lambda m: m.condition([[1.0, 0.0]], 1.0, 0.1), r"y must have shape \(1,\), got \(\)"),
        (lambda m: m.condition([[1.0, 0.0]], [math.nan], 0.1), r"y must be finite, got nan"),
        (lambda m: m.condition([[1.0, math.inf]], [1.0], 0.1), r"A must be finite, got inf"),
        (lambda m: m.condition([[1.0, 0.0]], [1.0], -0.1), r"noise_std must be non-negative and finite"),
        (
            lambda m: m.condition([[1.0, 0.0], [2.0, 0.0]], [1.0, 2.0], 0.0),
            r"A must have full row rank when noise_std is 0, got rank 1 with 2 rows",
        ),
    ],
)
def test_a_mixture_names_the_argument_that_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call(make(dtype=torch.float32))
