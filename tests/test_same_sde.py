"""A score belongs to one SDE: whoever is given it with another says so, and so does whoever loads its weights."""

import copy
import functools
import math
import pickle
import warnings

import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from torch.optim.swa_utils import AveragedModel

from scorebook import controllable_generation as cg
from scorebook import lab, noise_scales
from scorebook import probability_flow as flow
from scorebook.lab.distributions import GaussianMixture
from scorebook.sde import (
    SDE,
    VESDE,
    VPSDE,
    ScoreModel,
    SubVPSDE,
    at_noise_scale,
    at_time,
    euler_maruyama,
    predictor_corrector,
    reverse_drift,
    same_sde,
    score_matching_loss,
    sde_of,
)

VP, VE = VPSDE(), VESDE()
OTHERS = [VE, SubVPSDE(), VPSDE(0.1, 20.01), VPSDE(0.2, 20.0)]
SEEN = cg.LinearObservation(torch.eye(2), torch.zeros(2), 0.3)


class MyVP(SDE):
    """A variance-preserving SDE of somebody else's making, with neither comparison nor text of its own."""

    prior_std = 1.0

    def __init__(self, rate):
        self.rate = rate

    def alpha(self, t):
        return torch.exp(-0.5 * self.rate * torch.as_tensor(t))

    def sigma(self, t):
        return torch.sqrt(1 - self.alpha(t) ** 2)

    def drift(self, x, t):
        return -0.5 * self.rate * x

    def diffusion(self, t):
        return torch.full_like(torch.as_tensor(t), math.sqrt(self.rate))

    def _inverse_ratio(self, ratio):
        return torch.log1p(ratio**2) / self.rate


class Zero(nn.Module):
    """A network with one weight, which it multiplies by zero."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x, c_noise, label=None):
        return 0 * self.weight * x


def model(sde=VP, data_std=0.5):
    return ScoreModel(Zero(), sde, data_std)


def points():
    return torch.randn(3, 2, generator=torch.Generator().manual_seed(0))


USES = {
    "euler_maruyama": lambda sde, score: euler_maruyama(sde, score, points(), n_steps=3),
    "predictor_corrector": lambda sde, score: predictor_corrector(sde, score, points(), n_steps=3),
    "denoise": lambda sde, score: sde.denoise(score, points(), 0.5),
    "reverse_drift": lambda sde, score: reverse_drift(sde, score, points(), 0.5),
    "score_matching_loss": lambda sde, score: score_matching_loss(score, sde, points()),
    "at_noise_scale": lambda sde, score: at_noise_scale(score, sde)(points(), 1.0),
    "velocity": lambda sde, score: flow.velocity(sde, score)(0.5, points()),
    "sample": lambda sde, score: flow.sample(sde, score, points(), n_steps=3),
    "sample (dopri5)": lambda sde, score: flow.sample(sde, score, points()),
    "encode": lambda sde, score: flow.encode(sde, score, points(), n_steps=3),
    "log_prob": lambda sde, score: flow.log_prob(sde, score, points(), n_steps=3),
    "interpolate": lambda sde, score: flow.interpolate(sde, score, points(), -points(), [0.5], n_steps=3),
    "diffusion_posterior": lambda sde, score: cg.diffusion_posterior(score, sde, SEEN)(points(), 0.5),
    "pseudoinverse_guidance": lambda sde, score: cg.pseudoinverse_guidance(score, sde, SEEN)(points(), 0.5),
}


@pytest.mark.parametrize("use", USES)
def test_a_model_of_another_sde_is_refused_and_one_of_an_equal_sde_is_taken(use):
    USES[use](VPSDE(0.1, 20), model())
    for other in OTHERS:
        with pytest.raises(ValueError, match=r"(score|model) belongs to VPSDE\(beta_min=0.1, beta_max=20\), but"):
            USES[use](other, model())


def log_likelihood(x, t):
    return -x.square().sum(1)


WRAPPED = {
    "itself": lambda score: score,
    "given": lambda score: cg.given(score, label=None),
    "condition": lambda score: cg.condition(score, log_likelihood),
    "classifier_free": lambda score: cg.classifier_free(score, score, 2.0),
    "classifier_free (one of them)": lambda score: cg.classifier_free(score, lambda x, t: -x, 2.0),
    "classifier_free (the other)": lambda score: cg.classifier_free(lambda x, t: -x, score, 2.0),
    "diffusion_posterior": lambda score: cg.diffusion_posterior(score, VP, SEEN),
    "pseudoinverse_guidance": lambda score: cg.pseudoinverse_guidance(score, VP, SEEN),
    "in_basis": lambda score: cg.in_basis(score, torch.eye(2)),
    "given in condition": lambda score: cg.condition(cg.given(score, label=None), log_likelihood),
    "functools.partial": lambda score: functools.partial(score, label=None),
    "bound method": lambda score: score.forward,
    "torch.compile": lambda score: torch.compile(score),
    "AveragedModel": lambda score: AveragedModel(score),
    "DataParallel": lambda score: nn.DataParallel(score),
    "deep copy": copy.deepcopy,
    "pickled": lambda score: pickle.loads(pickle.dumps(score)),
    "at_time": lambda score: at_time(at_noise_scale(score, VP), VP),
}


@pytest.mark.parametrize("wrap", WRAPPED)
def test_the_sde_of_a_model_is_seen_through_what_is_made_of_it(wrap):
    score = WRAPPED[wrap](model())
    assert same_sde("score", score, VPSDE(0.1, 20)) is score
    with pytest.raises(ValueError, match="score belongs to VPSDE"):
        euler_maruyama(VE, score, points(), n_steps=3)


def test_exact_scores_say_where_they_belong():
    law = GaussianMixture([1.0], torch.zeros(1, 2), 1.0)
    with pytest.raises(ValueError, match="score belongs to VPSDE"):
        flow.sample(VE, VP.exact_score(law), points(), n_steps=3)


def test_two_scores_of_two_sdes_are_not_mixed():
    with pytest.raises(ValueError, match="conditional belongs to VPSDE"):
        cg.classifier_free(model(), model(VE), 2.0)


def test_a_weight_and_a_constraint_of_another_sde_are_refused():
    with pytest.raises(ValueError, match="weighting belongs to VESDE"):
        score_matching_loss(model(), VP, points(), weighting=model(VE).weight)
    known = cg.replace_known(VE, points(), torch.tensor([True, False]))
    with pytest.raises(ValueError, match="constraint belongs to VESDE"):
        euler_maruyama(VP, model(), points(), n_steps=3, constraint=known)


def test_a_score_in_time_is_not_taken_for_one_in_noise_scale():
    with pytest.raises(ValueError, match="score must be one in noise scale, got one in the time of VPSDE"):
        at_time(model(), VP)


@pytest.mark.parametrize("wrapped", [lambda f: f, lambda f: functools.partial(f, label=None)], ids=["plain", "partial"])
def test_a_score_in_time_is_not_asked_at_a_noise_scale(wrapped):
    vp = VPSDE()
    x, model = torch.randn(4, 2), wrapped(ScoreModel(lab.TimeMLP(2, width=8, depth=1, n_classes=2), vp))
    calls = {
        "score": lambda f: noise_scales.tweedie(f, x, 0.5),
        "score ": lambda f: noise_scales.annealed_langevin(f, x, [0.5, 0.1], step_size=1e-3, n_steps_each=2),
        "model": lambda f: noise_scales.denoising_score_matching_loss(f, x, 0.5),
    }
    for name, call in calls.items():
        with pytest.raises(
            ValueError, match=rf"{name.strip()} must be one in noise scale, got one in the time of VPSDE"
        ):
            call(model)
        assert call(at_noise_scale(model, vp)).isfinite().all()


def test_a_score_carried_over_to_another_sde_samples_there():
    law = GaussianMixture([1.0], torch.tensor([[1.0, -1.0]]), 0.5**2)
    sde = VESDE(0.01, 100.0)
    carried, x = at_time(at_noise_scale(VP.exact_score(law), VP), sde), 10 * points()
    for t in (0.1, 0.3, 0.5):
        torch.testing.assert_close(carried(x, t), sde.exact_score(law)(x, t), rtol=1e-4, atol=1e-5)


def test_what_says_nothing_is_not_compared():
    assert sde_of(lambda x, t: -x) is None
    assert sde_of(nn.Identity()) is None
    euler_maruyama(VE, lambda x, t: model()(x, t), points(), n_steps=3)


def test_sdes_of_ones_own_are_compared_by_their_kernel():
    one = model(MyVP(3.0))
    for equal in (one.sde, MyVP(3.0), copy.deepcopy(one.sde), VPSDE(3.0, 3.0)):
        assert same_sde("score", one, equal) is one
    with pytest.raises(ValueError, match=r"score belongs to .*MyVP"):
        same_sde("score", one, MyVP(3.1))


class Kept(MyVP):
    """The noise of the other, without its loss of signal."""

    def alpha(self, t):
        return torch.ones_like(torch.as_tensor(t))

    def sigma(self, t):
        return torch.sqrt(1 - MyVP.alpha(self, t) ** 2)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (VESDE(0.01, 50.0), VESDE(0.02, 50.0)),  # the same at t = 1
        (VESDE(0.01, 50.0), VESDE(0.01, 51.0)),  # at t = 0
        (VPSDE(0.1, 20.0), VPSDE(0.2, 19.9)),  # at either end
        (VPSDE(0.1, 20.0), VPSDE(1.1, 17.0)),  # at t = 0 and 1/2
        (VPSDE(), SubVPSDE()),  # the same signal
        (MyVP(3.0), Kept(3.0)),  # the same noise
        (VESDE(0.01, 50.0), VESDE(0.01, 50.002)),
    ],
)
def test_sdes_that_agree_in_part_are_two(one, other):
    for score, sde in ((model(one), other), (model(other), one)):
        with pytest.raises(ValueError, match="score belongs to"):
            same_sde("score", score, sde)
        with pytest.raises(ValueError, match="but the state belongs to"):
            model(sde).load_state_dict(score.state_dict())


def test_sdes_that_differ_by_a_rounding_are_one():
    score = model(VESDE(0.01, 50.0 * (1 + 1e-7)))
    assert same_sde("score", score, VESDE(0.01, 50.0)) is score
    model(VESDE(0.01, 50.0)).load_state_dict(score.state_dict())


# Weights


@pytest.mark.parametrize("there_and_back", [lambda state: state, lambda state: load(save(state))])
def test_a_state_goes_into_a_model_of_the_same_sde_without_a_word(there_and_back):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model().load_state_dict(there_and_back(model().state_dict()))
        AveragedModel(model()).load_state_dict(there_and_back(AveragedModel(model()).state_dict()))
        model(MyVP(3.0)).load_state_dict(there_and_back(model(MyVP(3.0)).state_dict()))


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("wrap", [lambda one: one, nn.Sequential, AveragedModel], ids=["itself", "nested", "average"])
@pytest.mark.parametrize(
    ("other", "message"),
    [
        (model(VE), "sde is VESDE.* but the state belongs to VPSDE"),
        (model(VPSDE(0.1, 20.01)), "sde is VPSDE.*20.01.* but the state belongs to VPSDE"),
        (model(MyVP(3.0)), "sde is .*MyVP.* but the state belongs to VPSDE"),
        (model(data_std=1.0), "data_std is 1, but the state belongs to data_std=0.5"),
    ],
)
def test_a_state_of_another_sde_or_data_std_is_refused(other, message, wrap, strict):
    with pytest.raises(ValueError, match=message):
        wrap(other).load_state_dict(wrap(model()).state_dict(), strict=strict)


@pytest.mark.parametrize("wrap", [lambda one: one, nn.Sequential], ids=["itself", "nested"])
def test_a_state_without_the_entry_loads_with_a_warning(wrap):
    old = {name: value + 1 for name, value in wrap(model()).state_dict().items() if "extra" not in name}
    fresh = wrap(model())
    with pytest.warns(UserWarning, match="could not be compared with VPSDE.* and data_std=0.5"):
        fresh.load_state_dict(old)
    assert [parameter.item() for parameter in fresh.parameters()] == [2.0]


def test_an_sde_that_is_learned_moves_with_the_weights():
    class Learned(MyVP, nn.Module):
        def __init__(self, rate):
            nn.Module.__init__(self)
            self.rate = nn.Parameter(torch.tensor(rate))

    other = model(Learned(2.0))
    other.load_state_dict(model(Learned(3.0)).state_dict())
    assert other.sde.rate.item() == 3.0


def test_the_shipped_weights_still_load_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network, card = lab.pretrained("digits")
        score = ScoreModel(network, VPSDE(**card["sde"]["arguments"]), data_std=card["data_std"])
    with pytest.raises(ValueError, match="score belongs to VPSDE"):
        flow.sample(VE, score, VE.sample_prior((2, 64)), n_steps=4)


def train(one, path, **options):
    def loss(one, x, *, generator):
        return score_matching_loss(one, one.sde, x, generator=generator)

    generator = torch.Generator().manual_seed(0)
    return lab.fit(one, loss, points(), n_steps=2, batch_size=2, generator=generator, checkpoint=path, **options)


@pytest.mark.parametrize(
    ("other", "message"),
    [(model(VE), "sde is VESDE.* but the state belongs to VPSDE"), (model(data_std=1.0), "data_std is 1, but")],
)
def test_training_does_not_go_on_under_another_sde_or_data_std(other, message, tmp_path):
    path = tmp_path / "checkpoint"
    train(model(), path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        train(other, path)
    assert path.read_bytes() == before
    assert [parameter.item() for parameter in other.parameters()] == [1.0]
    train(model(), path)


def test_a_checkpoint_without_the_entry_is_resumed_with_a_warning(tmp_path):
    path = tmp_path / "checkpoint"
    train(model(), path)
    state = torch.load(path)
    for part in ("model", "average"):
        state[part] = {name: value for name, value in state[part].items() if "extra" not in name}
    torch.save(state, path)
    with pytest.warns(UserWarning, match="could not be compared with VPSDE"):
        assert train(model(), path).n_steps == 2
