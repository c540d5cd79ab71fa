"""Guided scores are held to exact posteriors of mixtures, to closed forms of Gaussians, and to coverage."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_observations import blur

from scorebook import controllable_generation, probability_flow
from scorebook.controllable_generation import (
    LinearObservation,
    class_log_likelihood,
    classifier_free,
    classifier_loss,
    colour_basis,
    condition,
    diffusion_posterior,
    in_basis,
    pseudoinverse_guidance,
    replace_known,
    tweedie_moment_projection,
    twisted_particles,
)
from scorebook.lab.datasets import coloured_digits, digits
from scorebook.lab.distributions import GaussianMixture
from scorebook.lab.networks import NoisyClassifier, TimeMLP
from scorebook.noise_scales import annealed_langevin, geometric_noise_scales
from scorebook.sde import (
    VESDE,
    VPSDE,
    ScoreModel,
    StraightPath,
    SubVPSDE,
    at_noise_scale,
    euler_maruyama,
    predictor_corrector,
    time_sampler,
)

F64 = torch.float64
EACH_SDE = pytest.mark.parametrize("sde", [VESDE(0.01, 20.0), VPSDE(), SubVPSDE(), StraightPath()], ids=repr)
VP = VPSDE()
times = st.floats(1e-2, 1.0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=1, dtype=F64):
    return torch.randn(shape, generator=generator(seed), dtype=dtype)


def mixture(dim=3, n_components=3, seed=2):
    """Modes of unequal weight and shape, far enough apart to tell."""
    means = 1.2 * normal(n_components, dim, seed=seed)
    roots = 0.4 * normal(n_components, dim, dim, seed=seed + 1)
    weights = torch.rand(n_components, generator=generator(seed + 2), dtype=F64) + 0.2
    return GaussianMixture(weights / weights.sum(), means, roots @ roots.mT + 0.1 * torch.eye(dim, dtype=F64))


def gaussian(covariance, mean=None):
    covariance = torch.as_tensor(covariance, dtype=F64)
    mean = torch.zeros(len(covariance), dtype=F64) if mean is None else mean
    return GaussianMixture([1.0], mean[None], covariance[None])


def likelihood_of(law, sde, matrix, y, noise_std):
    """Exact log p_t(y | x) of a mixture, component by component; each row of ``x`` may have its own ``y``."""

    def log_likelihood(x, t):
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        terms = []
        for mean, covariance in zip(law.means, law.covariances, strict=True):
            gain = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(law.dim).to(mean))
            left = covariance - alpha * gain @ covariance
            spread = matrix @ left @ matrix.mT + noise_std**2 * torch.eye(len(matrix)).to(mean)
            centre = mean + (x - alpha * mean) @ gain.mT
            terms.append(torch.distributions.MultivariateNormal(centre @ matrix.mT, spread).log_prob(y))
        shares = law.diffuse(alpha, sigma).responsibilities(x)
        return (shares.log() + torch.stack(terms, dim=1)).logsumexp(1)

    return log_likelihood


def assert_moments(x, mean, covariance, slack=0.0):
    """Assert mean and covariance of a sample, to four standard errors of a Gaussian of that covariance."""
    n, variance = len(x), covariance.diagonal()
    assert bool(((x.mean(0) - mean).abs() <= 4 * (variance / n).sqrt() + slack).all()), (x.mean(0), mean)
    error = ((variance[:, None] * variance + covariance**2) / n).sqrt()
    # Mixtures have lighter tails than a Gaussian of their covariance, so its error is a bound.
    assert bool(((x.mT.cov() - covariance).abs() <= 4 * error + slack).all()), (x.mT.cov(), covariance)


# Bayes' rule


@settings(max_examples=30)
@given(t=times, seed=st.integers(0, 50), noise_std=st.floats(0.05, 1.0))
def test_the_score_guided_by_the_noisy_likelihood_is_that_of_the_posterior(t, seed, noise_std):
    law, matrix, y = mixture(seed=seed), normal(2, 3, seed=seed), normal(2, seed=seed + 1)
    posterior = law.condition(matrix, y, noise_std)
    x, t = normal(5, 3, seed=seed + 2), torch.tensor(t, dtype=F64)
    guided = condition(VP.exact_score(law), likelihood_of(law, VP, matrix, y, noise_std))
    expected = VP.exact_score(posterior)(x, t)
    assert (guided(x, t) - expected).abs().max() <= 1e-8 * max(1.0, expected.abs().max())


@EACH_SDE
@pytest.mark.parametrize("t", [0.02, 0.3, 1.0])
def test_guidance_by_the_class_gives_the_component(sde, t):
    law, x, t = mixture(), normal(6, 3), torch.tensor(t, dtype=F64)

    def log_class_1(x, t):
        return law.diffuse(sde.alpha(t), sde.sigma(t)).responsibilities(x)[:, 1].log()

    alone = GaussianMixture([1.0], law.means[1:2], law.covariances[1:2])
    torch.testing.assert_close(
        condition(sde.exact_score(law), log_class_1)(x, t), sde.exact_score(alone)(x, t), rtol=1e-8, atol=1e-8
    )


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0, torch.tensor([0.0, 0.5, 1.0, 2.0, 7.0])], ids=str)
def test_the_scale_multiplies_the_guidance_once_and_row_by_row(scale):
    law, x, t = mixture(), normal(5, 3), torch.tensor(0.4, dtype=F64)
    matrix, y = normal(1, 3), normal(1)
    prior = VP.exact_score(law)
    posterior = VP.exact_score(law.condition(matrix, y, 0.3))
    guidance = posterior(x, t) - prior(x, t)
    expected = prior(x, t) + torch.as_tensor(scale, dtype=F64).reshape(-1, 1) * guidance
    likelihood = likelihood_of(law, VP, matrix, y, 0.3)
    torch.testing.assert_close(condition(prior, likelihood, scale=scale)(x, t), expected)
    torch.testing.assert_close(classifier_free(posterior, prior, scale)(x, t), expected)


def test_a_time_per_row_is_that_row_s_time():
    law, x, t = mixture(), normal(4, 3), torch.tensor([0.05, 0.2, 0.6, 1.0], dtype=F64)
    seen = LinearObservation(normal(2, 3), normal(2), 0.1)
    score = VP.exact_score(law)
    for wrap in (pseudoinverse_guidance, tweedie_moment_projection, diffusion_posterior):
        guided = wrap(score, VP, seen)
        alone = torch.cat([guided(x[i : i + 1], t[i]) for i in range(4)])
        torch.testing.assert_close(guided(x, t), alone)


# Guidance from the prior's score alone


@EACH_SDE
@pytest.mark.parametrize("kind", ["matrix", "callables"])
@settings(max_examples=15)
@given(t=times, std=st.floats(0.2, 3.0), noise_std=st.floats(0.05, 2.0))
def test_pseudoinverse_guidance_is_exact_for_isotropic_gaussians(sde, kind, t, std, noise_std):
    forward, adjoint, matrix = blur()
    law = gaussian(std**2 * torch.eye(6), mean=normal(6, seed=5))
    y, x, t = normal(3, seed=6), normal(4, 6, seed=7), torch.tensor(t, dtype=F64)
    operator = matrix if kind == "matrix" else (forward, adjoint)
    seen = LinearObservation(operator, y[None], noise_std)
    expected = sde.exact_score(law.condition(matrix, y, noise_std))(x, t)
    got = pseudoinverse_guidance(sde.exact_score(law), sde, seen, data_std=std)(x, t)
    assert (got - expected).abs().max() <= 1e-7 * max(1.0, expected.abs().max())


@EACH_SDE
@pytest.mark.parametrize("kind", ["matrix", "callables"])
@settings(max_examples=15)
@given(t=times, seed=st.integers(0, 50), noise_std=st.floats(0.05, 2.0))
def test_tweedie_moment_projection_is_exact_for_every_gaussian(sde, kind, t, seed, noise_std):
    forward, adjoint, matrix = blur()
    root = normal(6, 6, seed=seed)
    law = gaussian(root @ root.mT + 0.1 * torch.eye(6), mean=normal(6, seed=5))
    y, x, t = normal(3, seed=6), normal(4, 6, seed=7), torch.tensor(t, dtype=F64)
    operator = matrix if kind == "matrix" else (forward, adjoint)
    seen = LinearObservation(operator, y[None], noise_std)
    expected = sde.exact_score(law.condition(matrix, y, noise_std))(x, t)
    got = tweedie_moment_projection(sde.exact_score(law), sde, seen)(x, t)
    assert (got - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max())


def test_a_field_that_is_no_score_is_given_no_negative_variance():
    """Its derivative is taken to be symmetric, with the negative part left out."""
    jacobian, t = torch.tensor([[1.0, 3.0], [0.0, 1.0]], dtype=F64), torch.tensor(0.4, dtype=F64)
    alpha, sigma = VP.alpha(t), VP.sigma(t)
    matrix, y, x = torch.eye(2, dtype=F64), normal(2), normal(5, 2, seed=4)

    def field(x, t):  # its denoised point is x J^T
        return (alpha * x @ jacobian.mT - x) / sigma**2

    spread = sigma**2 / alpha * torch.tensor([[1.0, 1.5], [1.5, 1.0]], dtype=F64)  # eigenvalues 2.5 and -0.5
    kept = sigma**2 / alpha * 2.5 * torch.full((2, 2), 0.5, dtype=F64)
    assert torch.linalg.eigvalsh(spread).min() < 0
    weights = torch.linalg.solve(kept + 0.3**2 * torch.eye(2), (y - x @ jacobian.mT).mT).mT
    guided = tweedie_moment_projection(field, VP, LinearObservation(matrix, y, 0.3))
    torch.testing.assert_close(guided(x, t), field(x, t) + weights @ jacobian)


@EACH_SDE
@pytest.mark.parametrize("t", [0.05, 0.4, 0.9])
def test_diffusion_posterior_without_a_limit_is_its_closed_form_on_a_gaussian(sde, t):
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.5]], dtype=F64)
    matrix, y, x = normal(1, 2), normal(1), normal(5, 2, seed=4)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    total = alpha**2 * covariance + sigma**2 * torch.eye(2, dtype=F64)
    jacobian = alpha * covariance @ torch.linalg.inv(total)  # of the posterior mean, which is linear in x
    residual = y - x @ jacobian.mT @ matrix.mT
    expected = -x @ torch.linalg.inv(total).mT + 0.7 * residual @ matrix @ jacobian / 0.3**2
    seen = LinearObservation(matrix, y, 0.3)
    guided = diffusion_posterior(sde.exact_score(gaussian(covariance)), sde, seen, scale=0.7, limit=None)
    torch.testing.assert_close(guided(x, torch.tensor(t, dtype=F64)), expected)


@pytest.mark.parametrize("limit", [0.3, 1.0])
def test_the_limit_bounds_the_length_of_each_guidance_and_keeps_its_direction(limit):
    law, t = mixture(), torch.tensor(0.2, dtype=F64)
    score, x = VP.exact_score(law), normal(400, 3)
    seen = LinearObservation(normal(2, 3), normal(2), 0.5)
    raw, limited = (diffusion_posterior(score, VP, seen, limit=bound)(x, t) - score(x, t) for bound in (None, limit))
    bound = limit * math.sqrt(3) / float(VP.sigma(t))
    within = raw.norm(dim=1) <= bound
    assert 20 < within.sum() < 380
    torch.testing.assert_close(limited[within], raw[within])
    torch.testing.assert_close(limited[~within], raw[~within] * bound / raw[~within].norm(dim=1, keepdim=True))


@pytest.mark.parametrize("noise_std", [0.01, 0.05])
@pytest.mark.parametrize("n_steps", [100, 400])
def test_diffusion_posterior_is_stable_where_the_raw_gradient_is_not(noise_std, n_steps):
    law = gaussian([[1.0, 0.9], [0.9, 1.0]])
    seen = LinearObservation(torch.tensor([[1.0, 0.0]], dtype=F64), torch.tensor([1.5], dtype=F64), noise_std)
    start = VP.sample_prior((300, 2), generator=generator(), dtype=F64)

    def error(limit):
        guided = diffusion_posterior(VP.exact_score(law), VP, seen, limit=limit)
        x = euler_maruyama(VP, guided, start, n_steps=n_steps, generator=generator(1))
        return seen.residual(x).square().mean().sqrt()

    assert error(1.0) < noise_std + 0.1
    if noise_std == 0.01:
        with pytest.raises(RuntimeError, match=r"states are no longer finite in .* of 300 rows at t="):
            error(None)


# Every sampler, each sample on its own


def flow(sde, score, x, **solver):
    return probability_flow.sample(sde, score, x, t_min=1e-2, **solver)


def anneal(sde, score, x, *, generator, n_steps_each):
    sigmas = geometric_noise_scales(15.0, 0.05, 30, dtype=F64)
    noise_scale = at_noise_scale(score, sde)
    return annealed_langevin(
        noise_scale, 15 * x, sigmas, step_size=2e-4, n_steps_each=n_steps_each, generator=generator
    )


SAMPLERS = {
    "euler_maruyama": lambda s, x: euler_maruyama(VP, s, x, n_steps=200, generator=generator(3)),
    "predictor_corrector": lambda s, x: predictor_corrector(VP, s, x, n_steps=100, generator=generator(3)),
    "annealed_langevin": lambda s, x: anneal(VP, s, x, generator=generator(3), n_steps_each=15),
    "flow, dopri5": lambda s, x: flow(VP, s, x),
    "flow, heun2": lambda s, x: flow(VP, s, x, method="heun2", n_steps=60),
}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_draws_from_the_posterior_with_a_guided_score(sampler):
    law, matrix, y = mixture(2, seed=8), torch.tensor([[1.0, -0.5]], dtype=F64), torch.tensor([0.3], dtype=F64)
    posterior = law.condition(matrix, y, 0.5)
    guided = condition(VP.exact_score(law), likelihood_of(law, VP, matrix, y, 0.5))
    x = SAMPLERS[sampler](guided, VP.sample_prior((1500, 2), generator=generator(2), dtype=F64))
    assert_moments(x, posterior.mean, posterior.covariance, slack=0.02)


def guided_scores():
    law, matrix, y = mixture(), normal(2, 3), normal(2, seed=3)
    score = VP.exact_score(law)
    callables = (lambda x: x @ matrix.mT, lambda y: y @ matrix)
    seen, seen_by_callables = (LinearObservation(operator, y[None], 0.1) for operator in (matrix, callables))
    likelihood = likelihood_of(law, VP, matrix, y, 0.1)
    return {
        "condition": condition(score, likelihood, scale=2.0),
        "classifier_free": classifier_free(VP.exact_score(law.condition(matrix, y, 0.1)), score, 2.0),
        "diffusion_posterior": diffusion_posterior(score, VP, seen),
        "pseudoinverse_guidance": pseudoinverse_guidance(score, VP, seen),
        "pseudoinverse_guidance, callables": pseudoinverse_guidance(score, VP, seen_by_callables),
        "tweedie_moment_projection": tweedie_moment_projection(score, VP, seen),
    }


GUIDED = guided_scores()


@pytest.mark.parametrize("sampler", ["euler_maruyama", "predictor_corrector", "annealed_langevin", "flow, heun2"])
@pytest.mark.parametrize("name", GUIDED)
def test_batch_mates_change_nothing(name, sampler):
    short = {
        "euler_maruyama": lambda s, x: euler_maruyama(VP, s, x, n_steps=40, generator=generator(3)),
        "predictor_corrector": lambda s, x: predictor_corrector(VP, s, x, n_steps=20, generator=generator(3)),
        "annealed_langevin": lambda s, x: anneal(VP, s, x, generator=generator(3), n_steps_each=1),
        "flow, heun2": lambda s, x: flow(VP, s, x, method="heun2", n_steps=20),
    }[sampler]
    x = normal(6, 3, seed=11)
    others = torch.cat([x[:1], 4 * normal(5, 3, seed=12)])
    first, second = short(GUIDED[name], x), short(GUIDED[name], others)
    assert (first[0] - second[0]).abs().max() <= 1e-8
    assert (first[1:] - second[1:]).abs().max() > 1e-5
    t = torch.tensor(0.3, dtype=F64)
    assert (GUIDED[name](x, t)[0] - GUIDED[name](others, t)[0]).abs().max() <= 1e-8


@pytest.mark.parametrize("name", GUIDED)
def test_guided_scores_have_the_derivative_of_their_differences(name):
    x, t = normal(3, 3, seed=13).requires_grad_(), torch.tensor(0.3, dtype=F64)
    direction, probe, h = normal(3, 3, seed=14), normal(3, 3, seed=15), 1e-5
    (gradient,) = torch.autograd.grad((GUIDED[name](x, t) * probe).sum(), x)
    with torch.no_grad():
        ahead, behind = (GUIDED[name](x + sign * h * direction, t) for sign in (1, -1))
    expected = ((ahead - behind) * probe).sum(1) / (2 * h)
    torch.testing.assert_close((gradient * direction).sum(1), expected, rtol=1e-5, atol=1e-5)


def test_the_flow_of_a_guided_score_has_the_likelihood_of_the_posterior():
    law, matrix, y = mixture(2, seed=8), torch.tensor([[1.0, -0.5]], dtype=F64), torch.tensor([0.3], dtype=F64)
    posterior = law.condition(matrix, y, 0.5)
    guided = condition(VP.exact_score(law), likelihood_of(law, VP, matrix, y, 0.5))
    x = posterior.sample(8, generator=generator())
    t_min = 1e-3
    diffused = posterior.diffuse(VP.alpha(t_min), VP.sigma(t_min))
    measured = probability_flow.log_prob(
        VP, guided, x, prior=posterior.diffuse(VP.alpha(1.0), VP.sigma(1.0)), rtol=1e-7, atol=1e-7, t_min=t_min
    )
    torch.testing.assert_close(measured, diffused.log_prob(x), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
@pytest.mark.parametrize("wrap", [diffusion_posterior, pseudoinverse_guidance, tweedie_moment_projection])
@pytest.mark.parametrize("operator_dtype", [torch.float32, F64], ids=str)
def test_the_precision_is_that_of_the_points_and_no_graph_is_kept(dtype, wrap, operator_dtype):
    seen = LinearObservation(normal(2, 3, dtype=operator_dtype), normal(2, dtype=operator_dtype), 0.1)
    model = ScoreModel(TimeMLP(3, width=8, depth=1, generator=generator()), VP).to(dtype)
    x = normal(4, 3, dtype=dtype)
    with torch.no_grad():
        out = wrap(model, VP, seen)(x, torch.tensor(0.3))
    assert (out.dtype, out.requires_grad, x.requires_grad) == (dtype, False, False)


# Coverage


def coverage(score, seen, truth, n_draws=39):
    """Share of truths within the 90 % interval of their posterior draws: between the 2nd and the 38th of 39."""
    n, dim = truth.shape
    start = VP.sample_prior((n_draws * n, dim), generator=generator(21), dtype=F64)
    draws = euler_maruyama(VP, score, start, n_steps=100, generator=generator(22)).reshape(n_draws, n, dim)
    ordered = draws.sort(dim=0).values
    return ((ordered[1] < truth) & (truth < ordered[-2])).double()


@pytest.mark.parametrize("kind", ["isotropic Gaussian, pseudoinverse", "mixture, exact likelihood"])
def test_truths_lie_in_the_ninety_percent_interval_nine_times_in_ten(kind):
    n, noise_std, matrix = 300, 0.4, torch.tensor([[1.0, 0.5]], dtype=F64)
    law = gaussian(torch.eye(2)) if kind.startswith("isotropic") else mixture(2, seed=8)
    truth = law.sample(n, generator=generator(23))
    y = truth @ matrix.mT + noise_std * normal(n, 1, seed=24)
    seen = LinearObservation(matrix, y.repeat(39, 1), noise_std)
    if kind.startswith("isotropic"):
        guided = pseudoinverse_guidance(VP.exact_score(law), VP, seen)
    else:
        guided = condition(VP.exact_score(law), likelihood_of(law, VP, matrix, y.repeat(39, 1), noise_std))
    inside = coverage(guided, seen, truth).mean(1)  # the two coordinates of a truth are not independent
    error = inside.std() / math.sqrt(n)
    assert abs(inside.mean() - 0.9) <= 4 * error, (inside.mean(), error)


# Replacement


RHO, SEEN = 0.9, 1.5


def replaced(sde, n=4000, n_steps=500, n_corrector_steps=0, **options):
    law = gaussian([[1.0, RHO], [RHO, 1.0]])
    known = torch.tensor([True, False])
    constraint = replace_known(sde, torch.tensor([SEEN, math.nan], dtype=F64), known, generator=generator(31))
    return predictor_corrector(
        sde,
        sde.exact_score(law),
        sde.sample_prior((n, 2), generator=generator(32), dtype=F64),
        n_steps=n_steps,
        n_corrector_steps=n_corrector_steps,
        constraint=constraint,
        generator=generator(33),
        **options,
    )


@pytest.mark.parametrize("sde", [VESDE(0.001, 20.0), VPSDE()], ids=repr)
def test_replacement_has_the_bias_of_its_closed_form(sde):
    x = replaced(sde)
    mean = SEEN / RHO * (1 - math.sqrt(1 - RHO**2))
    variance = (1 - RHO**2) * math.atanh(RHO) / RHO
    assert (x[:, 0] == SEEN).all()
    assert abs(x[:, 1].mean() - mean) <= 4 * math.sqrt(variance / 4000) + 0.01
    assert abs(x[:, 1].var() - variance) <= 4 * variance * math.sqrt(2 / 4000) + 0.01


def test_corrector_steps_repair_the_replacement():
    x = replaced(VPSDE(), n=1500, n_steps=200, n_corrector_steps=10, snr=math.sqrt(0.05))
    assert abs(x[:, 1].mean() - SEEN * RHO) <= 0.08
    assert abs(x[:, 1].var() - (1 - RHO**2)) <= 0.03


@EACH_SDE
def test_replacement_noises_the_known_part_for_its_time_and_leaves_the_rest(sde):
    y, mask = normal(4, 5), torch.tensor([True, True, False, True])
    x = normal(20_000, 4)
    constraint = replace_known(sde, y[:, 0], mask, generator=generator())
    for t in (0.3, 1.0):
        z = (constraint(x, torch.tensor(t, dtype=F64)) - sde.alpha(t) * y[:, 0]) / sde.sigma(t)
        assert bool((z[:, mask].mean(0).abs() < 4 / math.sqrt(len(x))).all())
        assert bool(((z[:, mask].var(0) - 1).abs() < 4 * math.sqrt(2 / len(x))).all())
    again = constraint(x, torch.tensor(0.3, dtype=F64))
    assert (again[:, ~mask] == x[:, ~mask]).all()
    assert (again != constraint(x, torch.tensor(0.3, dtype=F64)))[:, mask].all()
    torch.testing.assert_close(constraint(x, torch.tensor(0.0))[:, mask], y[mask, 0].expand(len(x), 3))


def test_each_sample_may_have_its_own_mask():
    x, y = normal(3, 2), normal(3, 2, seed=4)
    mask = torch.tensor([[True, False], [False, True], [True, True]])
    out = replace_known(VP, y, mask)(x, torch.tensor(0.0))
    torch.testing.assert_close(out, torch.where(mask, y, x))


# Particles


def clouds(law, sde, observation, *, n_clouds, n, n_steps, seed=41, prior=None, **options):
    """Independent clouds of particles of one posterior: samples, estimates of log p(y), and effective sizes, by cloud.

    They start in ``prior``, by default the law of the data at t = 1, so that nothing but the particles is judged.
    """
    if isinstance(observation, LinearObservation):  # a hair tells the clouds apart
        hair = 1e-9 * torch.arange(n_clouds, dtype=F64).repeat_interleave(n)
        operator = observation.matrix if observation.matrix is not None else PAIR
        y = observation.y + hair.reshape(-1, *[1] * (observation.y.ndim - 1))
        seen = LinearObservation(operator, y, observation.noise_std)
        batches = [(seen, n_clouds * n)]
    else:
        batches = [(observation, n)] * n_clouds
    start = law.diffuse(sde.alpha(1.0), sde.sigma(1.0)) if prior is None else prior
    draws, found = generator(seed), []
    for seen, size in batches:
        x = start.sample(size, generator=draws)
        options |= {"n_steps": n_steps, "generator": draws, "diagnostics": True}
        found.append(twisted_particles(sde.exact_score(law), sde, seen, x, **options))
    samples = torch.cat([x for x, _, _ in found]).reshape(n_clouds, n, -1)
    evidence = torch.cat([w for _, w, _ in found]).reshape(n_clouds, n).logsumexp(1) - math.log(n)
    sizes = torch.cat([e.reshape(n_steps + 1, -1) for _, _, e in found], dim=1)
    return samples, evidence, sizes


def assert_mean(values, expected, slack=0.0):
    """Assert the mean of independent values, to four of its standard errors."""
    values = torch.as_tensor(values, dtype=F64)
    error = values.std(0) / math.sqrt(len(values))
    assert bool(((values.mean(0) - expected).abs() <= 4 * error + slack).all()), (values.mean(0), error, expected)


CLUSTERS = GaussianMixture([0.2, 0.5, 0.3], torch.tensor([[-1.5, -1.0], [1.2, -0.6], [0.2, 1.4]], dtype=F64), 0.1)
PAIR = (lambda x: x @ normal(2, 3, seed=3).mT, lambda y: y @ normal(2, 3, seed=3))


@EACH_SDE
@pytest.mark.parametrize("twist", ["pseudoinverse", "tweedie"])
@pytest.mark.parametrize("kind", ["matrix", "callables"])
def test_weights_average_to_the_evidence_at_any_number_of_steps(sde, twist, kind):
    """For round Gaussian data each step's kernel is exact, so that no error of the steps hides a lost factor."""
    std, matrix = 0.7, normal(2, 3, seed=3)
    law, y = gaussian(std**2 * torch.eye(3)), torch.tensor([0.9, -0.4], dtype=F64)
    seen = LinearObservation(matrix if kind == "matrix" else PAIR, y[None], 0.4)
    last = sde.alpha(1e-3) * std**2 / torch.sqrt((sde.alpha(1e-3) * std) ** 2 + sde.sigma(1e-3) ** 2)
    shrunk = gaussian(last**2 * torch.eye(3))  # what is left of the data when they are denoised at the end
    density = torch.distributions.MultivariateNormal(
        torch.zeros(2, dtype=F64), last**2 * matrix @ matrix.mT + 0.4**2 * torch.eye(2)
    )
    options = {"n_clouds": 300, "n": 20, "n_steps": 6, "twist": twist, "data_std": std}
    samples, evidence, sizes = clouds(law, sde, seen, **options)
    assert_mean((evidence - density.log_prob(y)).exp(), 1.0)
    assert (sizes < 19).any()  # the weights are not equal, or nothing was tried
    # Moments of a cloud are biased by 1/n; weighted by the evidence that it found, they are not.
    posterior = shrunk.condition(matrix, y, 0.4)
    share = (evidence - density.log_prob(y)).exp()[:, None]
    assert_mean(share * (samples.mean(1) - posterior.mean), 0.0)
    assert_mean(share * ((samples - posterior.mean).square().mean(1) - posterior.covariance.diagonal()), 0.0)


@pytest.mark.parametrize("sde", [VESDE(0.01, 20.0), VPSDE()], ids=repr)
@pytest.mark.parametrize("twist", ["pseudoinverse", "tweedie"])
def test_particles_find_the_shares_of_the_clusters(sde, twist):
    law, matrix, y = CLUSTERS, torch.tensor([[1.0, 0.0]], dtype=F64), torch.tensor([0.55], dtype=F64)
    posterior = law.condition(matrix, y, 0.1)
    seen = LinearObservation(matrix, y, 0.1)
    samples, evidence, sizes = clouds(law, sde, seen, n_clouds=16, n=500, n_steps=200, twist=twist)
    nearest = torch.cdist(samples, law.means).argmin(2)
    assert 0.2 < posterior.weights[2] < 0.8
    assert_mean((nearest == 2).double().mean(1), posterior.weights[2], slack=0.01)
    assert_mean(samples.var(1), posterior.covariance.diagonal(), slack=0.02)
    spread = (law.covariances + 0.1**2).sqrt()
    terms = torch.distributions.Normal(law.means[:, 0], spread).log_prob(y) + law.weights.log()
    assert_mean(evidence, terms.logsumexp(0), slack=0.03)
    assert sizes.min() > 100


def test_what_is_known_of_a_point_may_be_any_likelihood():
    """The product of two mixtures is a mixture: one is the prior, the other the likelihood."""
    law = GaussianMixture([0.5, 0.5], torch.tensor([[-1.0, 0.0], [1.0, 0.3]], dtype=F64), 0.15)
    other = GaussianMixture([0.3, 0.7], torch.tensor([[-0.6, 0.5], [0.8, -0.5]], dtype=F64), 0.3)
    gaps = torch.cdist(law.means, other.means)
    heights = law.weights[:, None] * other.weights * torch.distributions.Normal(0.0, 0.45**0.5).log_prob(gaps).exp()
    heights = heights / math.sqrt(2 * math.pi * 0.45)  # in two dimensions
    samples, evidence, _ = clouds(law, VP, other.log_prob, n_clouds=12, n=300, n_steps=100)
    right = (samples[..., 0] > 0).double().mean(1)
    assert_mean(right, heights[1].sum() / heights.sum(), slack=0.01)
    assert_mean(evidence, heights.sum().log(), slack=0.03)


@pytest.mark.parametrize("width", [0.3, 0.03])
def test_a_likelihood_may_be_sharp(width):
    """A narrow ring through the three clusters. The likelihood of the denoised point alone, to whatever power, leads to
    one cluster and an evidence too low by ten nats.
    """

    def ring(x):
        return -((x.norm(dim=1) - 1.4) ** 2) / (2 * width**2)

    axis = torch.linspace(-3, 3, 1201, dtype=F64)
    grid = torch.cartesian_prod(axis, axis)
    heights = CLUSTERS.log_prob(grid) + ring(grid)
    nearest = torch.cdist(grid, CLUSTERS.means).argmin(1)
    true_shares = torch.stack([heights.softmax(0)[nearest == k].sum() for k in range(3)])
    samples, evidence, _ = clouds(CLUSTERS, VP, ring, n_clouds=12, n=500, n_steps=100)
    found = torch.cdist(samples, CLUSTERS.means).argmin(2)
    shares = torch.stack([(found == k).double().mean(1) for k in range(3)], dim=1)
    assert_mean(shares, true_shares, slack=0.01)
    assert_mean(evidence, heights.logsumexp(0) + 2 * math.log(6 / 1200), slack=0.03)


def test_a_linear_reading_may_be_told_as_a_likelihood():
    """What is averaged around the denoised point is then exact, so that hardly a particle is lost."""
    law, matrix = gaussian(torch.eye(3)), torch.tensor([[0.6, 0.8, 0.0]], dtype=F64)
    y, std = torch.tensor([1.2], dtype=F64), 0.02
    seen = LinearObservation(matrix, y, std)
    evidence_of_y = torch.distributions.Normal(0.0, math.sqrt(1 + std**2)).log_prob(y).item()
    samples, evidence, sizes = clouds(law, VP, seen.log_likelihood, n_clouds=8, n=400, n_steps=100)
    posterior = law.condition(matrix, y, std)
    assert_mean(samples.mean(1), posterior.mean, slack=0.01)
    assert_mean(evidence, evidence_of_y, slack=0.05)
    assert sizes.mean() > 250


def test_worn_particles_are_drawn_anew():
    seen = LinearObservation(torch.tensor([[1.0, 0.0]], dtype=F64), torch.tensor([-1.5], dtype=F64), 0.05)
    _, _, sizes = clouds(CLUSTERS, VP, seen, n_clouds=4, n=400, n_steps=200)
    worn = sizes[:-1] < 200
    assert worn.sum() > 3
    assert (sizes[1:][worn] > sizes[:-1][worn]).double().mean() > 0.9
    assert sizes.min() > 60  # without new draws the weights of all steps pile up on a few


def test_the_gradient_of_the_twist_spares_the_particles():
    """Without it the samples would be as right, and a reading in the tail would leave few of them."""
    law, matrix = gaussian(torch.eye(3)), torch.tensor([[1.0, 0.0, 0.0]], dtype=F64)
    seen = LinearObservation(matrix, torch.tensor([3.0], dtype=F64), 0.05)
    _, _, sizes = clouds(law, VP, seen, n_clouds=4, n=400, n_steps=100)
    assert sizes.mean() > 340
    assert (sizes < 200).sum() <= 8


def test_particles_are_equally_weighted_at_the_end():
    """One step leaves all of the correction to the last draw."""
    law, matrix = gaussian(0.8**2 * torch.eye(2)), torch.tensor([[1.0, 0.0]], dtype=F64)
    seen = LinearObservation(matrix, torch.tensor([1.0], dtype=F64), 0.3)
    posterior = law.condition(matrix, torch.tensor([1.0], dtype=F64), 0.3)
    samples, _, sizes = clouds(law, VP, seen, n_clouds=60, n=500, n_steps=1, data_std=0.8)
    assert sizes[-1].mean() < 300
    assert_mean(samples.mean(1), posterior.mean, slack=0.005)


def test_clouds_of_other_observations_change_nothing():
    matrix, score = normal(1, 2), VP.exact_score(mixture(2, seed=8))
    x, values = normal(60, 2), torch.tensor([0.5, -0.4, 1.0], dtype=F64).repeat_interleave(20)[:, None]

    def run(values, x):
        seen = LinearObservation(matrix, values, 0.2)
        return twisted_particles(score, VP, seen, x, n_steps=30, generator=generator(), diagnostics=True)

    samples, weights, sizes = run(values, x)
    others, _, other_sizes = run(torch.cat([values[:20], values[20:] + 0.3]), torch.cat([x[:20], -x[20:]]))
    torch.testing.assert_close(samples[:20], others[:20])
    assert (samples[20:] != others[20:]).all()
    assert sizes.shape == (31, 3)
    torch.testing.assert_close(sizes[:, 0], other_sizes[:, 0])
    last = weights.reshape(3, 20).softmax(1).square().sum(1)
    torch.testing.assert_close(sizes[-1], 1 / last)
    residual = LinearObservation(matrix, values, 0.2).residual(samples)
    assert residual.abs().mean() < 0.4


def test_particles_say_that_they_have_collapsed():
    law = mixture(4, seed=8)
    seen = LinearObservation(torch.eye(4, dtype=F64), law.means[0] + 3, 0.01)
    x = VP.sample_prior((200, 4), generator=generator(), dtype=F64)
    with pytest.warns(UserWarning, match=r"collapsed: at t=.* 200 of them were worth"):
        twisted_particles(VP.exact_score(law), VP, seen, x, n_steps=10, generator=generator())
    # Far outside the clusters no step leaves less than a tenth, and in the end a few are the ancestors of all.
    crowd = VP.sample_prior((400, 2), generator=generator(), dtype=F64)
    with pytest.warns(UserWarning, match=r"collapsed: the samples descend from [1-3](\.\d+)? of 400 at the start"):
        twisted_particles(
            VP.exact_score(CLUSTERS),
            VP,
            lambda x: -((x.norm(dim=1) - 3.5) ** 2) / (2 * 0.02**2),
            crowd,
            n_steps=60,
            generator=generator(),
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        easy = LinearObservation(torch.eye(4, dtype=F64), law.means[0], 1.0)
        twisted_particles(VP.exact_score(law), VP, easy, x, n_steps=50, generator=generator())


def test_particles_that_cannot_explain_what_was_seen_are_an_error():
    def impossible(x):
        return torch.where(x.sum(1) > 1e6, 0.0, -math.inf) + 0 * x.sum(1)

    with pytest.raises(RuntimeError, match="no particle explains the observation at t=1"):
        twisted_particles(score, VP, impossible, POINTS, n_steps=3)


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
@pytest.mark.parametrize("twist", ["pseudoinverse", "tweedie"])
def test_particles_serve_a_learned_score_in_its_precision(dtype, twist):
    model = ScoreModel(TimeMLP((1, 2, 2), width=8, depth=1, generator=generator()), VP).to(dtype)
    with torch.no_grad():
        model.network.trunk.last.weight.normal_(std=0.03, generator=generator())
    seen = LinearObservation(normal(2, 4, dtype=dtype), normal(2, dtype=dtype), 0.3)
    x = normal(50, 1, 2, 2, dtype=dtype).requires_grad_()
    samples = twisted_particles(model, VP, seen, x, n_steps=20, twist=twist, generator=generator())
    assert (samples.dtype, samples.shape, samples.requires_grad) == (dtype, x.shape, False)


# Classes


def test_the_loss_is_the_cross_entropy_on_noised_points():
    classifier = NoisyClassifier(2, 3, generator=generator()).double()
    with torch.no_grad():
        classifier.trunk.last.weight.copy_(normal(*classifier.trunk.last.weight.shape))
    x, labels = normal(64, 2), torch.arange(64) % 3
    loss = classifier_loss(classifier, VP, x, labels, generator=generator(5))
    draw = generator(5)
    t = time_sampler(VP)(64, draw).to(x)
    noisy, _ = VP.perturb(x, t, generator=draw)
    expected = class_log_likelihood(classifier, labels)(noisy, t)
    torch.testing.assert_close(loss, -expected.mean())


def test_the_exact_classifier_minimises_the_loss():
    law = mixture(2, seed=8)
    x, labels = law.sample(20_000, generator=generator(), labels=True)

    def gradients(chunk):
        tilt = torch.zeros(4, dtype=F64, requires_grad=True)

        def tilted(x, t):
            logits = law.diffuse(VP.alpha(t), VP.sigma(t)).responsibilities(x).log()
            return logits * (1 + tilt[0]) + tilt[1:]

        loss = classifier_loss(tilted, VP, x[chunk], labels[chunk], generator=generator(int(chunk[0])))
        return torch.autograd.grad(loss, tilt)[0]

    slopes = torch.stack([gradients(chunk) for chunk in torch.arange(20_000).split(500)])
    assert bool((slopes.mean(0).abs() <= 4 * slopes.std(0) / math.sqrt(len(slopes))).all())


def test_one_label_serves_all_rows():
    classifier = NoisyClassifier(2, 3, generator=generator())
    x = normal(4, 2, dtype=torch.float32)
    torch.testing.assert_close(
        class_log_likelihood(classifier, 2)(x, 0.5), class_log_likelihood(classifier, torch.full((4,), 2))(x, 0.5)
    )


def test_a_condition_is_closed_over():
    model = ScoreModel(TimeMLP(2, n_classes=3, generator=generator()), VP)
    with torch.no_grad():
        model.network.trunk.last.weight.normal_(generator=generator())
    x, label = normal(4, 2, dtype=torch.float32), torch.tensor([0, 1, 2, -1])
    score = controllable_generation.given(model, label=label)
    torch.testing.assert_close(score(x, torch.tensor(0.5)), model(x, torch.tensor(0.5), label=label))
    torch.testing.assert_close(score(x, torch.tensor(0.5))[3], model(x, torch.tensor(0.5))[3])


# Colours


def test_the_colour_basis_is_orthogonal_and_begins_with_grey():
    basis = colour_basis(dtype=F64)
    torch.testing.assert_close(basis @ basis.mT, torch.eye(3, dtype=F64))
    torch.testing.assert_close(basis[0], torch.full((3,), 1 / math.sqrt(3), dtype=F64))


def test_the_first_channel_of_a_coloured_digit_is_its_grey_picture():
    images, grey = coloured_digits("test")[0], digits("test")[0]
    first = torch.einsum("j,bjhw->bhw", colour_basis()[0], images)
    torch.testing.assert_close(2 * first / math.sqrt(3) + 1, grey[:, 0], atol=1e-5, rtol=0)


def test_a_score_in_another_basis_is_that_of_the_rotated_law():
    law, basis, z = mixture(), colour_basis(dtype=F64), normal(5, 3)
    rotated = GaussianMixture(law.weights, law.means @ basis.mT, basis @ law.covariances @ basis.mT)
    t = torch.tensor(0.3, dtype=F64)
    torch.testing.assert_close(in_basis(VP.exact_score(law), basis)(z, t), VP.exact_score(rotated)(z, t))


def test_the_basis_acts_on_channels_pixel_by_pixel():
    z, basis = normal(2, 3, 4, 4), colour_basis(dtype=F64)
    torch.testing.assert_close(in_basis(lambda x, t: 2 * x, basis)(z, 0.5), 2 * z)
    weights = normal(3)

    def score(x, t):
        return weights.reshape(3, 1, 1) * x

    whole = in_basis(score, basis)(z, 0.5)
    pixel = in_basis(lambda x, t: weights * x, basis)(z[:, :, 1, 2], 0.5)
    torch.testing.assert_close(whole[:, :, 1, 2], pixel)


# Bad input


def score(x, t):
    return -x


def likelihood(x, t):
    return -x.square().sum(1)


POINTS = normal(4, 3)
TIME = torch.tensor(0.5, dtype=F64)
OBSERVATION = LinearObservation(normal(2, 3), normal(2), 0.1)


def seen_by(y):
    return LinearObservation(normal(2, 3), y, 0.1)


@pytest.mark.parametrize("scale", [-1.0, math.inf, math.nan, torch.tensor([1.0, -2.0])])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda scale: condition(score, likelihood, scale=scale),
        lambda scale: classifier_free(score, score, scale),
        lambda scale: diffusion_posterior(score, VP, OBSERVATION, scale=scale),
    ],
)
def test_a_scale_that_is_negative_or_not_finite_is_refused(wrap, scale):
    with pytest.raises(ValueError, match="scale"):
        wrap(scale)


@pytest.mark.parametrize(
    ("match", "call"),
    [
        ("log_likelihood", lambda: condition(score, lambda x, t: x)(POINTS, TIME)),
        ("log_likelihood", lambda: condition(score, lambda x, t: likelihood(x, t).sum())(POINTS, TIME)),
        ("log_likelihood", lambda: condition(score, lambda x, t: 1.0)(POINTS, TIME)),
        ("log_likelihood", lambda: condition(score, lambda x, t: likelihood(x, t).detach())(POINTS, TIME)),
        ("score", lambda: condition(lambda x, t: x[:, :1], likelihood)(POINTS, TIME)),
        ("unconditional", lambda: classifier_free(score, lambda x, t: x[0], 1.0)(POINTS, TIME)),
        ("conditional", lambda: classifier_free(lambda x, t: x[0], score, 1.0)(POINTS, TIME)),
        ("score", lambda: diffusion_posterior(lambda x, t: -x.detach(), VP, OBSERVATION)(POINTS, TIME)),
        ("score", lambda: pseudoinverse_guidance(lambda x, t: x[0], VP, OBSERVATION)(POINTS, TIME)),
        ("limit", lambda: diffusion_posterior(score, VP, OBSERVATION, limit=0.0)),
        ("data_std", lambda: pseudoinverse_guidance(score, VP, OBSERVATION, data_std=-1.0)),
        ("score", lambda: tweedie_moment_projection(lambda x, t: x[0], VP, OBSERVATION)(POINTS, TIME)),
        ("score", lambda: tweedie_moment_projection(VP.exact_score(mixture()), VESDE(), OBSERVATION)),
        ("score", lambda: twisted_particles(VP.exact_score(mixture()), VESDE(), OBSERVATION, POINTS, n_steps=2)),
        ("x must", lambda: twisted_particles(score, VP, OBSERVATION, POINTS[:0], n_steps=2)),
        ("n_steps", lambda: twisted_particles(score, VP, OBSERVATION, POINTS, n_steps=0)),
        ("twist", lambda: twisted_particles(score, VP, OBSERVATION, POINTS, n_steps=2, twist="mean")),
        ("data_std", lambda: twisted_particles(score, VP, OBSERVATION, POINTS, n_steps=2, data_std=0.0)),
        ("observation", lambda: twisted_particles(score, VP, normal(2), POINTS, n_steps=2)),
        ("observation", lambda: twisted_particles(score, VP, lambda x: x, POINTS, n_steps=2)),
        ("observation", lambda: twisted_particles(score, VP, lambda x: x.detach().sum(1), POINTS, n_steps=2)),
        ("y must", lambda: twisted_particles(score, VP, seen_by(normal(4, 2)), POINTS, n_steps=2)),
        ("y must", lambda: twisted_particles(score, VP, seen_by(normal(2, 2)[[0, 1, 1, 1]]), POINTS, n_steps=2)),
        ("y must", lambda: twisted_particles(score, VP, seen_by(normal(3, 2)), POINTS, n_steps=2)),
        ("mask", lambda: replace_known(VP, normal(3), torch.ones(4, dtype=torch.bool))),
        ("mask", lambda: replace_known(VP, normal(3), torch.ones(3))),
        ("mask", lambda: replace_known(VP, normal(3), torch.ones(5, 3, dtype=torch.bool))(POINTS, TIME)),
        ("y must", lambda: replace_known(VP, normal(2), torch.ones(2, dtype=torch.bool))(POINTS, TIME)),
        ("y must", lambda: replace_known(VP, torch.full((3,), math.inf), torch.ones(3, dtype=torch.bool))),
        ("labels", lambda: class_log_likelihood(score, 0.5)),
        ("labels", lambda: class_log_likelihood(score, 3)(POINTS, TIME)),
        ("labels", lambda: class_log_likelihood(score, torch.tensor([1, 2]))(POINTS, TIME)),
        ("labels", lambda: classifier_loss(lambda x, t: -x, VP, POINTS, torch.tensor([0, 1, 2, 3]))),
        ("labels", lambda: classifier_loss(lambda x, t: -x, VP, POINTS, torch.tensor([0, 1]))),
        ("classifier", lambda: classifier_loss(lambda x, t: x[:, 0], VP, POINTS, torch.zeros(4, dtype=torch.long))),
        ("basis", lambda: in_basis(score, torch.ones(3, 3))),
        ("basis", lambda: in_basis(score, torch.ones(3, 2))),
        ("basis", lambda: in_basis(score, colour_basis())(normal(4, 2), TIME)),
    ],
)
def test_bad_input_is_named(match, call):
    with pytest.raises(ValueError, match=match):
        call()


def test_a_score_made_of_others_knows_the_scale_of_the_data_as_soon_as_one_of_them_does():
    model = ScoreModel(TimeMLP(2, width=8), VP, data_std=3.0)

    def without(x, t):
        return -x

    for scores in ((model, without), (without, model), (model, model)):
        assert classifier_free(*scores, 2.0).data_std == 3.0
    assert classifier_free(without, without, 2.0).data_std is None


def test_a_particle_without_weight_is_never_drawn(monkeypatch):
    monkeypatch.setattr(controllable_generation, "uniform", lambda shape, **options: torch.zeros(shape, dtype=F64))
    log_weights = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0]])
    _, drawn = controllable_generation._drawn_anew(log_weights, torch.tensor([True]), None)
    assert drawn.tolist() == [1, 1, 3, 3]


def test_the_warning_of_a_collapse_points_at_the_line_that_called():
    prior = GaussianMixture([1.0], torch.zeros(1, 2), [1.0])
    seen = LinearObservation(torch.eye(2), torch.tensor([[40.0, 40.0]]), 0.01)
    x = VP.sample_prior((200, 2), generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="the particles collapsed") as told:
        twisted_particles(VP.exact_score(prior), VP, seen, x, n_steps=4, generator=torch.Generator().manual_seed(0))
    assert told[0].filename == __file__


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_basis_may_be_off_by_what_was_rounded_and_by_no_more(dtype):
    basis = torch.linalg.qr(torch.randn(3, 3, dtype=F64, generator=torch.Generator().manual_seed(0))).Q
    along = torch.outer(basis[0], basis[1]) @ basis
    in_basis(lambda x, t: -x, (basis + 3e-6 * along).to(dtype))
    with pytest.raises(ValueError, match="basis must be orthogonal"):
        in_basis(lambda x, t: -x, (basis + 1e-4 * along).to(dtype))
