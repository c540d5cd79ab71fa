"""In half precision, functions of noise give what single precision gives, to the rounding of what they return."""

import math

import pytest
import torch

from scorebook import controllable_generation as cg
from scorebook import probability_flow
from scorebook.lab.networks import TimeMLP
from scorebook.lab.predictions import convert_prediction
from scorebook.langevin import gradient_ascent, langevin, metropolis_adjusted_langevin
from scorebook.noise_scales import (
    annealed_langevin,
    denoising_score_matching_loss,
    geometric_noise_scales,
    suggest_sigma_max,
    tweedie,
)
from scorebook.sde import (
    VESDE,
    VPSDE,
    ScoreModel,
    at_noise_scale,
    euler_maruyama,
    predictor_corrector,
    reverse_drift,
    score_matching_loss,
    simulate,
)

HALF = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
# From 256 on the square of the noise overflows float16; from 62 on that of the diffusion does.
EACH_SDE = pytest.mark.parametrize(
    "sde", [VESDE(0.01, 62.0), VESDE(0.01, 300.0), VESDE(0.01, 2000.0), VPSDE()], ids=repr
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def exact_score(sde):
    """The score of standard normal data, rounded only when it is returned."""

    def score(x, t):
        wide = x.float()
        alpha, sigma = (c.reshape(-1, *[1] * (x.ndim - 1)).float() for c in (sde.alpha(t), sde.sigma(t)))
        return (-wide / (alpha**2 + sigma**2)).to(x.dtype)

    return score


def at_end(sde, dtype, rows=2000):
    return sde.sample_prior((rows, 2), generator=generator(), dtype=torch.float32).to(dtype)


def agrees(half, single, roundings=4):
    """Whether two results agree to a few roundings of the first, of the size of the greatest number."""
    size = single.double().abs().max()
    return bool((half.double() - single.double()).abs().max() <= roundings * torch.finfo(half.dtype).eps * size)


def model(sde, dtype):
    network = TimeMLP(2, width=16, depth=1, generator=generator())
    torch.nn.init.normal_(network.trunk.last.weight, std=0.3, generator=generator())
    return ScoreModel(network.to(dtype), sde)


def observation(x):
    return cg.LinearObservation(torch.eye(2, dtype=x.dtype)[:1], torch.full((1,), 0.5, dtype=x.dtype), 0.05)


def a_pair(x):
    operator = (lambda x: x[:, :1], lambda y: torch.cat([y, torch.zeros_like(y)], 1))
    return cg.LinearObservation(operator, torch.full((1, 1), 0.5, dtype=x.dtype), 0.05)


EVERY_SAMPLE = {
    "euler_maruyama": lambda sde, x: euler_maruyama(sde, exact_score(sde), x, n_steps=300, generator=generator(1)),
    "predictor_corrector": lambda sde, x: predictor_corrector(
        sde, exact_score(sde), x, n_steps=300, generator=generator(1)
    ),
    "annealed_langevin": lambda sde, x: annealed_langevin(
        at_noise_scale(exact_score(sde), sde),
        x,
        geometric_noise_scales(sde.sigma(1.0) / sde.alpha(1.0), 0.02, 100),
        step_size=1e-4,
        n_steps_each=5,
        generator=generator(1),
    ),
    "simulate": lambda sde, x: simulate(
        lambda x, t: reverse_drift(sde, exact_score(sde), x, t),
        lambda x, t: sde.diffusion(t),
        x,
        torch.linspace(1, 0.01, 301, dtype=torch.float64),
        generator=generator(1),
    ),
    "posterior": lambda sde, x: euler_maruyama(
        sde, cg.pseudoinverse_guidance(exact_score(sde), sde, observation(x)), x, n_steps=300, generator=generator(1)
    ),
}


@HALF
@EACH_SDE
@pytest.mark.parametrize("sampler", EVERY_SAMPLE)
def test_samples_have_the_moments_that_single_precision_gives(sampler, sde, dtype):
    x = at_end(sde, dtype)
    if sampler == "simulate" and sde.prior_std == 2000 and dtype == torch.float16:
        with pytest.raises(RuntimeError, match="states are no longer finite"):  # the drift itself exceeds float16
            EVERY_SAMPLE[sampler](sde, x)
        return
    half, single = EVERY_SAMPLE[sampler](sde, x), EVERY_SAMPLE[sampler](sde, x.float())
    assert half.dtype == dtype
    # The noise is the same, so that the two differ by rounding, not by chance.
    assert (half.float().std(0) / single.std(0) - 1).abs().max() < 0.02
    assert (half.float().mean(0) - single.mean(0)).abs().max() < 0.02


SCORES = {
    "reverse_drift": lambda sde, x, t: reverse_drift(sde, exact_score(sde), x, t),
    "ScoreModel": lambda sde, x, t: model(sde, x.dtype)(x, t),
    "ScoreModel.on_grid": lambda sde, x, t: model(sde, x.dtype).on_grid(t.reshape(1))[0](x),
    "perturb": lambda sde, x, t: sde.perturb(torch.ones_like(x), t, generator=generator())[1],
    "prior_log_prob": lambda sde, x, t: sde.prior_log_prob(x.reshape(4, -1)),
}


@HALF
@EACH_SDE
@pytest.mark.parametrize("t", [1.0, 0.5])
@pytest.mark.parametrize("name", SCORES)
def test_values_are_those_of_single_precision(name, sde, dtype, t):
    x, t = at_end(sde, dtype, rows=20), torch.tensor(t)
    half, single = SCORES[name](sde, x, t), SCORES[name](sde, x.float(), t)
    if name == "perturb":  # whose noise is drawn in the dtype of x
        assert half.isfinite().all()
    else:
        in_range = single.abs() < torch.finfo(half.dtype).max
        assert agrees(half[in_range], single[in_range], roundings=16 if "Model" in name else 4)


@HALF
@EACH_SDE
def test_a_denoised_point_is_off_by_the_rounding_of_the_state_and_its_score_alone(sde, dtype):
    x, t = at_end(sde, dtype), torch.tensor(1.0)
    if sde.alpha(1.0) <= torch.finfo(dtype).eps * sde.sigma(1.0):
        with pytest.raises(ValueError, match="t must leave a signal in x"):
            sde.denoise(exact_score(sde), x, t)
        return
    half, single = sde.denoise(exact_score(sde), x, t), sde.denoise(exact_score(sde), x.float(), t)
    of_score = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps * sde.sigma(1.0) ** 2
    rounding = (torch.finfo(dtype).eps * x.double().abs().max() + of_score) / sde.alpha(1.0)
    assert (half.double() - single.double()).abs().max() <= rounding
    if isinstance(sde, VESDE):
        denoised = tweedie(at_noise_scale(exact_score(sde), sde), x, sde.sigma_max)
        assert (denoised.double() - single.double()).abs().max() <= rounding


@HALF
@EACH_SDE
def test_losses_are_those_of_single_precision(sde, dtype):
    clean = torch.randn(20_000, 2, generator=generator()).to(dtype)
    losses = [
        score_matching_loss(model(sde, d), sde, clean.to(d), generator=generator(1)) for d in (dtype, torch.float)
    ]
    assert losses[0].dtype == torch.float32
    assert abs(losses[0] / losses[1] - 1) < 0.05  # the noise is drawn in the dtype of x
    images = torch.ones(2, 3, 256, 256, dtype=dtype)  # a sum over so many numbers overflows float16
    assert 5e4 < denoising_score_matching_loss(lambda x, s: 0 * x, images, 0.5, generator=generator()) < 1.5e5
    assert 5e4 < score_matching_loss(lambda x, t: 0 * x, sde, images, generator=generator()) < 1.5e5


@HALF
@pytest.mark.parametrize("sigma", [62.0, 300.0, 2000.0])
@pytest.mark.parametrize("target", ["noise", "clean", "velocity", "flow", "score"])
@pytest.mark.parametrize("source", ["noise", "clean", "velocity", "flow", "score"])
def test_predictions_convert_as_in_single_precision(source, target, sigma, dtype):
    x = (sigma * torch.randn(50, 3, generator=generator())).to(dtype)
    prediction = torch.randn(50, 3, generator=generator(1)).to(dtype)
    if source == "score":
        prediction = prediction / sigma
    if source == "velocity":
        prediction = prediction * sigma
    half, single = (
        convert_prediction(prediction.to(d), x.to(d), 1.0, sigma, source=source, target=target)
        for d in (dtype, torch.float32)
    )
    in_range = single.abs() < torch.finfo(dtype).max
    assert half.dtype == dtype
    assert agrees(half[in_range], single[in_range], roundings=1)


@HALF
def test_what_a_divergence_sends_through_a_score_stays_in_its_range(dtype):
    sde, x = VESDE(0.01, 2000.0), torch.tensor([[0.5, -1.0], [2.0, 0.3]])

    def score(x, t):
        return (-x / (1 + sde.sigma(t) ** 2)).to(x.dtype)

    half, single = (probability_flow.log_prob(sde, score, v, method="midpoint", n_steps=60) for v in (x.to(dtype), x))
    assert agrees(half, single)


@HALF
@EACH_SDE
@pytest.mark.parametrize("observe", [observation, a_pair])
@pytest.mark.parametrize("guidance", [cg.diffusion_posterior, cg.pseudoinverse_guidance])
def test_guidance_is_that_of_single_precision(guidance, observe, sde, dtype):
    x, t = at_end(sde, dtype, rows=50) / 2, torch.tensor(0.4)
    half, single = (guidance(exact_score(sde), sde, observe(y))(y, t) for y in (x, x.float()))
    assert half.dtype == dtype
    # What is guided is the denoised point, of which the rounding of x and its score leaves so much.
    tolerance = 30 * torch.finfo(dtype).eps * max(1, float(x.abs().max() / sde.alpha(t)))
    assert (half.float() - single).abs().max() <= tolerance * single.abs().max()


@HALF
def test_chains_keep_small_steps(dtype):
    """Steps of less than half a rounding of the state would be lost, were the state rounded after each."""
    x = torch.full((4, 1), 100.0, dtype=dtype)
    ahead = gradient_ascent(lambda x: torch.ones_like(x), x, step_size=0.01, n_steps=1000)
    assert (ahead == 110).all()
    moved = langevin(
        lambda x: torch.zeros_like(x), x[:1].expand(4000, 1), step_size=1e-4, n_steps=500, generator=generator()
    )
    assert 0.09 < moved.float().var() < 0.1 + 0.5**2 / 12 + 0.01  # bfloat16 is spaced by 0.5 there


@HALF
def test_the_acceptance_rate_does_not_stall(dtype):
    x = torch.zeros(2, 1, dtype=dtype)
    _, rate = metropolis_adjusted_langevin(
        lambda x: -0.5 * x.float().square().sum(1), x, step_size=1e-3, n_steps=3000, generator=generator()
    )
    assert (rate > 0.8).all(), rate


def test_the_greatest_distance_does_not_overflow():
    data = torch.tensor([[-6e4, 0.0], [6e4, 0.0]], dtype=torch.float16)
    assert suggest_sigma_max(data) == 2 * data[1, 0].float()


@HALF
def test_the_log_density_of_the_prior_does_not_overflow(dtype):
    x = torch.full((1, 3, 256, 256), 1.0, dtype=dtype)
    expected = -0.5 * x.numel() * (1 + math.log(2 * math.pi))
    assert abs(VPSDE().prior_log_prob(x).item() / expected - 1) < 1e-5
