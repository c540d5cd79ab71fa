"""Each conversion is held against the definitions of both kinds, and returns what it was given on the way back."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scorebook.lab.distributions import GaussianMixture
from scorebook.lab.predictions import convert_prediction

F64 = torch.float64
KINDS = ("score", "noise", "clean", "velocity", "flow")
PAIRS = list(itertools.product(KINDS, KINDS))
LEVEL = st.floats(0.05, 20.0)

DEFINITIONS = {
    "score": lambda x0, noise, alpha, sigma: -noise / sigma,
    "noise": lambda x0, noise, alpha, sigma: noise,
    "clean": lambda x0, noise, alpha, sigma: x0,
    "velocity": lambda x0, noise, alpha, sigma: alpha * noise - sigma * x0,
    "flow": lambda x0, noise, alpha, sigma: noise - x0,
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=F64)


def noised(x0, noise, alpha, sigma):
    """A noisy point and what each kind says of it when clean point and noise are known."""
    return alpha * x0 + sigma * noise, {kind: rule(x0, noise, alpha, sigma) for kind, rule in DEFINITIONS.items()}


@pytest.mark.parametrize(("source", "target"), PAIRS)
@settings(max_examples=30)
@given(alpha=LEVEL, sigma=LEVEL, seed=st.integers(0, 99))
def test_a_conversion_agrees_with_the_definitions(source, target, alpha, sigma, seed):
    x, says = noised(normal(4, 3, seed=seed), normal(4, 3, seed=seed + 100), alpha, sigma)
    converted = convert_prediction(says[source], x, alpha, sigma, source=source, target=target)
    torch.testing.assert_close(converted, says[target], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("source", "target"), PAIRS)
@settings(max_examples=30)
@given(alpha=LEVEL, sigma=LEVEL, seed=st.integers(0, 99))
def test_a_round_trip_returns_any_prediction_even_a_wrong_one(source, target, alpha, sigma, seed):
    x, prediction = normal(4, 3, seed=seed), normal(4, 3, seed=seed + 100)
    there = convert_prediction(prediction, x, alpha, sigma, source=source, target=target)
    back = convert_prediction(there, x, alpha, sigma, source=target, target=source)
    torch.testing.assert_close(back, prediction, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_each_row_has_its_own_noise_level_whatever_the_shape_of_an_event(source, target):
    alpha, sigma = torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0.2, 0.5, 2.0])
    prediction, x = normal(3, 2, 4).float(), normal(3, 2, 4, seed=1).float()
    together = convert_prediction(prediction, x, alpha, sigma, source=source, target=target)
    assert together.dtype == torch.float32
    for k in range(3):
        alone = convert_prediction(
            prediction[k : k + 1], x[k : k + 1], alpha[k].item(), sigma[k].item(), source=source, target=target
        )
        torch.testing.assert_close(together[k : k + 1], alone)


@pytest.mark.parametrize(("alpha", "sigma"), [(0.8, 0.6), (1.0, 3.0), (0.3, 0.7)])
def test_the_score_of_a_mixture_becomes_its_posterior_mean(alpha, sigma):
    law = GaussianMixture([0.3, 0.7], normal(2, 2), torch.tensor([0.5, 2.0], dtype=F64))
    x = normal(5, 2, seed=1)
    clean = convert_prediction(law.diffuse(alpha, sigma).score(x), x, alpha, sigma, source="score", target="clean")
    posterior = torch.stack([law.condition(alpha * torch.eye(2, dtype=F64), point, sigma).mean for point in x])
    torch.testing.assert_close(clean, posterior)


def test_velocity_and_flow_are_the_speeds_on_the_arc_and_on_the_straight_line():
    x0, noise = normal(6, 2), normal(6, 2, seed=1)
    when = torch.tensor(0.4, dtype=F64)
    paths = {"velocity": lambda t: (t.cos(), t.sin()), "flow": lambda t: (1 - t, t)}
    for kind, path in paths.items():
        alpha, sigma = path(when)
        x, speed = torch.func.jvp(
            lambda t, path=path: path(t)[0] * x0 + path(t)[1] * noise, (when,), (torch.ones((), dtype=F64),)
        )
        converted = convert_prediction(noise, x, alpha, sigma, source="noise", target=kind)
        torch.testing.assert_close(converted, speed)


@pytest.mark.parametrize(
    ("alpha", "sigma", "source", "target"),
    [
        (0.0, 1.0, "score", "noise"),
        (0.0, 1.0, "noise", "score"),
        (0.0, 1.0, "velocity", "clean"),
        (0.0, 1.0, "flow", "clean"),
        (0.0, 1.0, "clean", "velocity"),
        (1.0, 0.0, "score", "clean"),
        (1.0, 0.0, "noise", "clean"),
        (1.0, 0.0, "velocity", "noise"),
        (1.0, 0.0, "flow", "noise"),
        (1.0, 0.0, "noise", "velocity"),
    ],
)
def test_what_is_known_at_the_ends_of_the_path_is_told_there(alpha, sigma, source, target):
    x0, noise = normal(4, 2), normal(4, 2, seed=1)
    says = {kind: rule(x0, noise, alpha, sigma) for kind, rule in DEFINITIONS.items() if sigma or kind != "score"}
    says.setdefault("score", normal(4, 2, seed=2))
    x = alpha * x0 + sigma * noise
    converted = convert_prediction(says[source], x, alpha, sigma, source=source, target=target)
    torch.testing.assert_close(converted, says[target])


@pytest.mark.parametrize(
    ("alpha", "sigma", "source", "target", "named"),
    [
        (0.0, 1.0, "noise", "clean", "alpha"),
        (0.0, 1.0, "score", "flow", "alpha"),
        (1.0, 0.0, "clean", "noise", "sigma"),
        (1.0, 0.0, "noise", "score", "sigma"),
        (1.0, 0.0, "velocity", "score", "sigma"),
        (0.0, 0.0, "velocity", "clean", "alpha \\+ sigma"),
        (0.0, 0.0, "flow", "noise", "alpha \\+ sigma"),
        (torch.tensor([0.5, 0.0]), 1.0, "noise", "clean", "alpha"),
        (-0.1, 1.0, "noise", "noise", "alpha"),
        (1.0, math.nan, "noise", "noise", "sigma"),
        (1.0, torch.ones(3), "noise", "clean", "one value per row"),
    ],
)
def test_a_noise_level_that_does_not_tell_is_an_error(alpha, sigma, source, target, named):
    with pytest.raises(ValueError, match=named):
        convert_prediction(normal(2, 3), normal(2, 3), alpha, sigma, source=source, target=target)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"source": "epsilon"}, "source must be one of"),
        ({"target": "v"}, "target must be one of"),
        ({"prediction": normal(2, 4)}, "prediction must have shape"),
        ({"prediction": 1.0}, "prediction must be a floating tensor"),
        ({"x": torch.ones(2, 3, dtype=torch.int64)}, "x must be a floating tensor"),
    ],
)
def test_an_argument_that_does_not_fit_is_named(change, named):
    arguments = {"prediction": normal(2, 3), "x": normal(2, 3), "alpha": 1.0, "sigma": 1.0}
    kinds = {"source": "noise", "target": "clean"}
    for name, value in change.items():
        (kinds if name in kinds else arguments)[name] = value
    with pytest.raises(ValueError, match=named):
        convert_prediction(*arguments.values(), **kinds)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_gradients_pass_through(source, target):
    prediction = normal(2, 3).requires_grad_()
    converted = convert_prediction(prediction, normal(2, 3, seed=1), 0.8, 0.5, source=source, target=target)
    (gradient,) = torch.autograd.grad(converted.sum(), prediction)
    shift = convert_prediction(prediction + 1, normal(2, 3, seed=1), 0.8, 0.5, source=source, target=target)
    torch.testing.assert_close(gradient, (shift - converted).detach())
