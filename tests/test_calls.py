"""A network written for the times of training, shape (B,), meets no other: not in sampling, guidance or likelihoods."""

import functools
import pickle

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from scorebook import controllable_generation, lab, noise_scales, probability_flow, sde
from scorebook.lab.calls import at, layers, one_time_for_all, takes_one_time, time_per_row

VP = sde.VPSDE()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


X = torch.randn(5, 2, generator=seeded(3), dtype=torch.float64)
SIGMAS = torch.tensor([1.0, 0.5], dtype=torch.float64)
MATRIX, SEEN = torch.tensor([[1.0, 0.5]], dtype=torch.float64), torch.tensor([0.7], dtype=torch.float64)
OBSERVATION = controllable_generation.LinearObservation(MATRIX, SEEN, 0.3)


def field(x, column):
    """What all networks below compute, of points and a column of times."""
    return -x + 0.1 * torch.sin(3 * x + column)


class Columns(nn.Module):
    """Each network in its own way takes for granted that there is a time per row."""

    def forward(self, x, t):
        return field(x, t[:, None])


class Concatenated(nn.Module):
    def forward(self, x, t):
        both = torch.cat([x, t.view(-1, 1)], dim=1)
        return field(both[:, :-1], both[:, -1:])


class Fourier(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("frequencies", torch.tensor([1e-3, 1.0], dtype=torch.float64))

    def forward(self, x, t):
        waves = (t.unsqueeze(-1) * self.frequencies).sin()
        return field(x, torch.asin(waves[:, :1]) * 1e3)


class InPlace(nn.Module):
    def forward(self, x, t):
        t *= 2
        t /= 2
        return field(x, t.reshape(len(t), 1))


class RowByRow(nn.Module):
    def forward(self, x, t):
        return torch.stack([field(row, time) for row, time in zip(x, t, strict=True)])


class Several(nn.Module):
    """One for which a scalar time is worse than an error: it would broadcast in silence."""

    def forward(self, x, t):
        assert t.shape == (len(x),)
        assert t.dtype == torch.promote_types(x.dtype, torch.float32)
        return field(x, t.view(-1, 1))


NETWORKS = [Columns, Concatenated, Fourier, InPlace, RowByRow, Several]


def closed_form(x, t):
    t = torch.as_tensor(t, dtype=x.dtype)
    return field(x, t if t.ndim == 0 else t[:, None])


class Classifier(nn.Module):
    def forward(self, x, t):
        return torch.cat([x * t[:, None], t[:, None]], dim=1)


def classify(x, t):
    t = t.expand(len(x))
    return torch.cat([x * t[:, None], t[:, None]], dim=1)


class Likelihood(nn.Module):
    def forward(self, x, t):
        return -((x.sum(1) - t) ** 2)


GRID = {"times": torch.tensor([0.7, 0.5, 0.2]), "method": "adams"}


def flow(**solver):
    return lambda score: probability_flow.sample(VP, score, X, **solver)


CALLS = {
    "denoise": lambda score: VP.denoise(score, X, 0.5),
    "reverse_drift": lambda score: sde.reverse_drift(VP, score, X, torch.tensor(0.5)),
    "on_grid": lambda score: sde.on_grid(score, torch.tensor([0.5, 0.1]))[0](X),
    "euler_maruyama": lambda score: sde.euler_maruyama(VP, score, X, n_steps=3, generator=seeded()),
    "predictor_corrector": lambda score: sde.predictor_corrector(VP, score, X, n_steps=3, generator=seeded()),
    "at_noise_scale, tweedie": lambda score: noise_scales.tweedie(sde.at_noise_scale(score, VP), X, 0.5),
    "at_noise_scale, annealed_langevin": lambda score: noise_scales.annealed_langevin(
        sde.at_noise_scale(score, VP), X, SIGMAS, step_size=0.1, n_steps_each=2, generator=seeded()
    ),
    "at_time": lambda score: sde.euler_maruyama(VP, sde.at_time(score, VP), X, n_steps=3, generator=seeded()),
    "tweedie": lambda score: noise_scales.tweedie(score, X, 0.5),
    "annealed_langevin": lambda score: noise_scales.annealed_langevin(
        score, X, SIGMAS, step_size=0.1, n_steps_each=2, generator=seeded()
    ),
    "denoising_score_matching_loss": lambda score: noise_scales.denoising_score_matching_loss(
        score, X, 0.5, generator=seeded()
    ),
    "score_matching_loss": lambda score: sde.score_matching_loss(score, VP, X, generator=seeded()),
    "velocity": lambda score: probability_flow.velocity(VP, score)(0.5, X),
    "dopri5": flow(),
    "adams": flow(n_steps=4),
    "euler": flow(n_steps=3, method="euler"),
    "rk4": flow(n_steps=2, method="rk4"),
    "with_log_prob": lambda score: torch.cat(
        [part.flatten() for part in probability_flow.sample(VP, score, X, n_steps=3, with_log_prob=True)]
    ),
    "differentiable": flow(n_steps=3, differentiable=True),
    "encode": lambda score: probability_flow.encode(VP, score, X, n_steps=3),
    "log_prob": lambda score: probability_flow.log_prob(VP, score, X, n_steps=3),
    "log_prob, dopri5": lambda score: probability_flow.log_prob(VP, score, X, rtol=1e-2, atol=1e-2),
    "log_prob, hutchinson": lambda score: probability_flow.log_prob(
        VP, score, X, n_steps=3, divergence="hutchinson", generator=seeded()
    ),
    "interpolate": lambda score: probability_flow.interpolate(VP, score, X, X.flip(0), [0.3], n_steps=3),
    "classifier_free": lambda score: flow(**GRID)(controllable_generation.classifier_free(score, score, 2.0)),
    "given": lambda score: flow(**GRID)(controllable_generation.given(score)),
    "condition": lambda score: flow(**GRID)(controllable_generation.condition(score, Likelihood())),
    "diffusion_posterior": lambda score: flow(**GRID)(
        controllable_generation.diffusion_posterior(score, VP, OBSERVATION)
    ),
    "pseudoinverse_guidance": lambda score: flow(**GRID)(
        controllable_generation.pseudoinverse_guidance(score, VP, OBSERVATION)
    ),
    "in_basis": lambda score: flow(**GRID)(
        controllable_generation.in_basis(score, torch.eye(2, dtype=torch.float64).flip(0))
    ),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("call", CALLS)
def test_a_network_for_the_times_of_training_is_the_score_that_it_computes(call, network):
    torch.testing.assert_close(CALLS[call](network()), CALLS[call](closed_form), rtol=1e-9, atol=1e-9)


IN_NOISE_SCALE = {"at_time", "tweedie", "annealed_langevin", "denoising_score_matching_loss"}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("call", sorted(CALLS.keys() - IN_NOISE_SCALE))
def test_a_score_model_calls_its_network_with_a_time_per_row(call, network):
    """Beside it a model whose network says that it takes one time for all rows, and gets it."""

    class Told(nn.Module):
        @one_time_for_all
        def forward(self, x, t):
            shapes.add(t.shape)
            return closed_form(x, t)

    shapes = set()
    naive, told = (sde.ScoreModel(each, VP, data_std=0.7) for each in (network(), Told()))
    torch.testing.assert_close(CALLS[call](naive), CALLS[call](told), rtol=1e-9, atol=1e-9)
    assert call == "score_matching_loss" or torch.Size([]) in shapes


def test_a_classifier_for_the_times_of_training_guides():
    def guided(classifier):
        likelihood = controllable_generation.class_log_likelihood(classifier, 1)
        return flow(**GRID)(controllable_generation.condition(closed_form, likelihood))

    torch.testing.assert_close(guided(Classifier()), guided(classify))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda network: network.forward,
        functools.partial,
        lambda network: functools.partial(functools.partial(network)),
        AveragedModel,
        nn.DataParallel,
        lambda network: torch.compile(network, backend="eager"),
        lambda network: pickle.loads(pickle.dumps(network)),
        lambda network: controllable_generation.given(functools.partial(network)),
    ],
    ids=["method", "partial", "partials", "averaged", "parallel", "compiled", "pickled", "given"],
)
def test_a_network_is_seen_through_what_wraps_it(wrap):
    torch.testing.assert_close(flow(n_steps=3)(wrap(Several())), flow(n_steps=3)(closed_form))


@pytest.mark.parametrize("network", [lab.TimeMLP(2), lab.NoisyClassifier(2, 3), lab.UNet(1), sde.ScoreModel(None, VP)])
def test_modules_of_the_package_take_one_time_for_all_rows(network):
    assert takes_one_time(network)
    assert takes_one_time(AveragedModel(network))
    assert takes_one_time(torch.compile(network, backend="eager"))


def test_a_subclass_with_a_forward_of_its_own_gets_a_time_per_row():
    class Mine(lab.TimeMLP):
        def forward(self, x, t):
            return field(x, t[:, None])

    assert not takes_one_time(Mine(2))
    torch.testing.assert_close(flow(n_steps=3)(Mine(2)), flow(n_steps=3)(closed_form))
    patched = lab.TimeMLP(2)
    patched.forward = lambda x, t: field(x, t[:, None])
    torch.testing.assert_close(flow(n_steps=3)(patched), flow(n_steps=3)(closed_form))


def test_a_network_trains_and_then_samples():
    """The story as users tell it: it trained, then it died in sampling."""

    class Naive(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(3, 32), nn.SiLU(), nn.Linear(32, 2))

        def forward(self, x, t):
            return self.layers(torch.cat([x, t.view(-1, 1)], dim=1))

    def loss(model, x, *, generator):
        return sde.score_matching_loss(model, VP, x, generator=generator)

    for wrap in (lambda network: network, lambda network: sde.ScoreModel(network, VP)):
        model = wrap(Naive())
        lab.fit(model, loss, X.float(), n_steps=3, generator=seeded())
        assert torch.isfinite(sde.euler_maruyama(VP, model, X.float(), n_steps=3)).all()
        assert torch.isfinite(probability_flow.log_prob(VP, model, X.float(), n_steps=3)).all()


def test_a_function_that_cannot_do_with_a_scalar_time_is_told_so_once():
    network = Columns()
    for score in (lambda x, t: network(x, t), lambda x, t: torch.cat([x, t], 1), lambda x, t: x[: len(t)]):
        guided = controllable_generation.classifier_free(score, score, 1.0)
        for call in (CALLS["euler_maruyama"], CALLS["log_prob"]):
            with pytest.raises((IndexError, RuntimeError, TypeError)) as caught:
                call(guided)
            assert len(caught.value.__notes__) == 1
            assert r"t.expand(len(x))" in caught.value.__notes__[0]
    with pytest.raises(RuntimeError, match="mine") as caught:
        at(lambda x, t: (_ for _ in ()).throw(RuntimeError("mine")), X, torch.full((5,), 0.5))
    assert not hasattr(caught.value, "__notes__")
    assert torch.equal(flow(n_steps=3)(lambda x, t: network(x, t.expand(len(x)))), flow(n_steps=3)(network))


@pytest.mark.parametrize("t", [0.5, 1, torch.tensor(0.5), torch.tensor([0.5]), torch.full((5,), 0.5), torch.tensor(1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_time_per_row(t, dtype):
    rows = time_per_row(t, X.to(dtype))
    assert rows.shape == (5,)
    assert rows.dtype == torch.promote_types(dtype, torch.float32)
    assert (rows == torch.as_tensor(t).flatten()[0]).all()
    if rows is not t:
        rows += torch.arange(5)  # which an expanded view refuses


@pytest.mark.parametrize("t", [torch.zeros(4), torch.zeros(5, 1), torch.tensor(0.5j)])
def test_time_per_row_refuses_what_fits_no_row(t):
    with pytest.raises(ValueError, match="t must be"):
        time_per_row(t, X)


def test_layers_go_from_the_outside_in():
    network = Columns()
    averaged = AveragedModel(network)
    outer = functools.partial(averaged.forward)
    assert [type(layer).__name__ for layer in layers(outer)] == ["partial", "method", "AveragedModel", "Columns"]
    assert list(layers(len)) == [len]
