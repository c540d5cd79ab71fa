"""Samplers and guidance in programs that we did not write: right there too, or refused with cause and cure."""

import copy
import functools
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from scorebook import controllable_generation as cg
from scorebook import lab
from scorebook import probability_flow as flow
from scorebook.lab.arguments import still_finite
from scorebook.langevin import gradient_ascent, langevin
from scorebook.noise_scales import annealed_langevin
from scorebook.sde import (
    VESDE,
    VPSDE,
    ScoreModel,
    SubVPSDE,
    at_noise_scale,
    at_time,
    euler_maruyama,
    log_normal_times,
    on_grid,
    predictor_corrector,
    score_matching_loss,
    simulate,
    time_sampler,
)

VP = VPSDE()
LAW = lab.GaussianMixture([0.4, 0.6], torch.tensor([[1.0, -1.0], [-1.0, 0.5]]), [0.3, 0.5])
EXACT = VP.exact_score(LAW)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def points(n=4):
    return torch.randn(n, 2, generator=generator(3))


def matrix():
    return cg.LinearObservation(torch.tensor([[1.0, 0.5]]), torch.tensor([0.7]), 0.3)


def log_likelihood(x, t):
    return -0.5 * (x[:, 0] - t).square()


GUIDED = {
    "condition": lambda score: cg.condition(score, log_likelihood),
    "classifier_free": lambda score: cg.classifier_free(score, lambda x, t: -x, 2.0),
    "diffusion_posterior": lambda score: cg.diffusion_posterior(score, VP, matrix()),
    "pseudoinverse_guidance": lambda score: cg.pseudoinverse_guidance(score, VP, matrix()),
}


# Contexts


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("guidance", GUIDED)
def test_guidance_without_gradients_is_guidance(guidance, context):
    guided, x = GUIDED[guidance](EXACT), points()
    expected = guided(x, 0.4).detach()
    with context():
        torch.testing.assert_close(guided(x, 0.4), expected, rtol=0, atol=0)
        torch.testing.assert_close(guided(x.clone(), 0.4), expected, rtol=0, atol=0)  # an inference tensor


@torch.no_grad()
def without_gradient(x, t):
    return EXACT(x, t)


def in_part(x, t):
    return EXACT(x.detach(), t) - 0.1 * x


@pytest.mark.parametrize("score", [without_gradient, in_part])
@pytest.mark.parametrize("guidance", ["diffusion_posterior", "pseudoinverse_guidance"])
def test_guidance_through_a_score_that_hides_its_derivative_is_refused(guidance, score):
    with pytest.raises(ValueError, match="score must be differentiable in x"):
        GUIDED[guidance](score)(points(), 0.4)


@pytest.mark.parametrize(
    "hidden",
    [lambda x, t: log_likelihood(x.detach(), t), lambda x, t: log_likelihood(x.detach(), t) - 0.1 * x.square().sum(1)],
)
def test_a_likelihood_that_hides_its_derivative_is_refused(hidden):
    with pytest.raises(ValueError, match="log_likelihood must be differentiable in x"):
        cg.condition(EXACT, hidden)(points(), 0.4)


@pytest.mark.parametrize("default", [torch.float64, torch.float32])
def test_the_default_device_is_nobody_elses(default):
    x, times = points(), VP.time_grid(5, spacing="karras", dtype=torch.float64)
    expected = euler_maruyama(VP, EXACT, x, times=times, generator=generator())
    torch.set_default_device("meta")
    torch.set_default_dtype(default)
    try:
        torch.testing.assert_close(VP.time_grid(5, spacing="karras", dtype=torch.float64), times)
        torch.testing.assert_close(euler_maruyama(VP, EXACT, x, times=times, generator=generator()), expected)
        euler_maruyama(VP, lambda x, t: -x, x, n_steps=3)
        predictor_corrector(VP, lambda x, t: -x, x, n_steps=3)
        assert VP.sigma(0.5).device.type == "cpu"
        for sample_times in (None, time_sampler(VP, uniform_in="log_noise"), log_normal_times(VP)):
            assert score_matching_loss(lambda x, t: -x, VP, x, sample_times=sample_times).device.type == "cpu"
        guided = cg.replace_known(VP, x, torch.tensor([True, False], device="cpu"))
        euler_maruyama(VP, EXACT, x, n_steps=3, constraint=guided)
        for guidance in GUIDED.values():
            guidance(EXACT)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


# NaN half-way


class NanFrom:
    """A score that is NaN in some rows from some call on."""

    def __init__(self, call, rows=(1, 2)):
        self.call, self.rows, self.n = call, list(rows), 0

    def __call__(self, x, *noise):
        self.n += 1
        s = -x
        if self.n >= self.call:
            s[self.rows] = math.nan
        return s


HALF_WAY = {
    "euler_maruyama": (lambda s: euler_maruyama(VP, s, points(), n_steps=8, t_min=0.2), r"2 of 4 rows at t=0\.6"),
    "predictor_corrector": (
        lambda s: predictor_corrector(VP, s, points(), n_steps=4, t_min=0.2),
        r"2 of 4 rows at t=0\.6",
    ),
    "simulate": (
        lambda s: simulate(s, lambda x, t: 1.0, points(), torch.linspace(0, 2, 9)),
        r"2 of 4 rows at t=1",
    ),
    "gradient_ascent": (
        lambda s: gradient_ascent(s, points(), step_size=0.1, n_steps=8),
        r"chain 1 diverged at step 4 of 8 .* like 1 others of 4",
    ),
    "langevin": (
        lambda s: langevin(s, points(), step_size=0.1, n_steps=8),
        r"chain 1 diverged at step 4 of 8 .* like 1 others of 4",
    ),
    "annealed_langevin": (
        lambda s: annealed_langevin(s, points(), [2.0, 1.0], step_size=0.1, n_steps_each=2),
        r"chain 1 diverged at step 2 of 2 .* like 1 others of 4",
    ),
}


@pytest.mark.parametrize("sampler", HALF_WAY)
def test_a_score_that_turns_nan_half_way_stops_the_sampler(sampler):
    run, message = HALF_WAY[sampler]
    with pytest.raises(RuntimeError, match=message):
        run(NanFrom(4))


def test_nan_in_the_denoised_states_alone_is_told():
    with pytest.raises(RuntimeError, match=r"denoised states .* 1 of 4 rows at t=0\.2"):
        euler_maruyama(VP, NanFrom(5, [3]), points(), n_steps=4, t_min=0.2)
    with pytest.raises(RuntimeError, match=r"denoised states .* 1 of 4 rows at sigma=1"):
        annealed_langevin(NanFrom(5, [3]), points(), [2.0, 1.0], step_size=0.1, n_steps_each=2)


def in_one_entry(x, *noise):
    s = -x
    s[2, 1] = math.nan
    return s


FIXED = {
    "euler_maruyama": (lambda s, n: euler_maruyama(VP, s, points(), n_steps=n, t_min=0.2, denoise=False), "t", -0.8),
    "predictor_corrector": (
        lambda s, n: predictor_corrector(VP, s, points(), n_steps=n, n_corrector_steps=0, t_min=0.2, denoise=False),
        "t",
        -0.8,
    ),
    "simulate": (lambda s, n: simulate(s, lambda x, t: 1.0, points(), torch.linspace(1, 2, n + 1)), "t", 1.0),
}


@pytest.mark.parametrize("call", [1, 2, 3, 4])
@pytest.mark.parametrize("sampler", FIXED)
def test_each_step_is_looked_at_the_first_and_the_last_too(sampler, call):
    run, name, way = FIXED[sampler]
    with pytest.raises(RuntimeError, match=rf"states .* in 2 of 4 rows at {name}={1 + call / 4 * way:g}, first in row"):
        run(NanFrom(call), 4)


@pytest.mark.parametrize("sampler", FIXED)
def test_one_entry_makes_a_row(sampler):
    with pytest.raises(RuntimeError, match=r"in 1 of 4 rows at .*, first in row 2"):
        FIXED[sampler][0](in_one_entry, 4)


@pytest.mark.parametrize("call", [1, 2, 3, 4])
@pytest.mark.parametrize("chain", [gradient_ascent, langevin])
def test_each_step_of_a_chain_is_looked_at(chain, call):
    with pytest.raises(RuntimeError, match=f"chain 1 diverged at step {call} of 4 .* like 1 others of 4"):
        chain(NanFrom(call), points(), step_size=0.1, n_steps=4)


def test_states_that_their_own_dtype_cannot_hold_are_told():
    x = points().half()
    runs = [
        lambda s: gradient_ascent(s, x, step_size=10.0, n_steps=1),
        lambda s: euler_maruyama(VP, s, x, n_steps=1, denoise=False),
        lambda s: simulate(s, lambda x, t: 0.0, x, torch.tensor([0.0, 10.0])),
    ]
    for run in runs:
        with pytest.raises(RuntimeError, match="no longer finite"):
            run(lambda x, *t: torch.full_like(x, 6e4))


def test_a_sum_that_overflows_is_no_state_that_does():
    x = torch.full((2, 4), 3e38)
    assert still_finite("states", x, "t", 0.5) is x


@pytest.mark.parametrize("sampler", [euler_maruyama, predictor_corrector])
@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        (lambda x, t: x[:2], r"constraint must return shape \(4, 2\)"),
        (lambda x, t: None, r"constraint must return a tensor of shape \(4, 2\), got NoneType"),
        (lambda x, t: x.round().int(), "constraint must return real floating-point numbers"),
        (lambda x, t: x + 0j, "constraint must return real floating-point numbers"),
    ],
)
def test_a_constraint_that_returns_something_else_is_refused(sampler, constraint, message):
    with pytest.raises(ValueError, match=message):
        sampler(VP, EXACT, points(), n_steps=3, constraint=constraint)


def test_a_constraint_in_double_precision_leaves_the_states_in_theirs():
    x = euler_maruyama(VP, EXACT, points(), n_steps=3, constraint=lambda x, t: x.double(), generator=generator())
    assert torch.equal(x, euler_maruyama(VP, EXACT, points(), n_steps=3, generator=generator()))


# The fast path


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.3))

    def forward(self, x, c_noise, label=None):
        return self.rate * x


class Doubled(ScoreModel):
    def forward(self, x, t, **condition):
        return 2 * super().forward(x, t, **condition)


SAMPLERS = {
    "euler_maruyama": (lambda s: euler_maruyama(VP, s, points(), n_steps=4, generator=generator()), 5),
    "predictor_corrector": (lambda s: predictor_corrector(VP, s, points(), n_steps=4, generator=generator()), 9),
    "adams": (lambda s: flow.sample(VP, s, points(), n_steps=4), 4),
}


@pytest.mark.parametrize("hook", ["forward", "forward_pre", "global", "backward"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_hooks_are_called_once_for_each_evaluation(sampler, hook):
    run, n_evaluations = SAMPLERS[sampler]
    model, calls = ScoreModel(Linear(), VP), []
    expected = run(model)

    def note(module, *arguments):
        if module is model:
            calls.append(module)

    register = {
        "forward": model.register_forward_hook,
        "forward_pre": model.register_forward_pre_hook,
        "global": nn.modules.module.register_module_forward_hook,
        "backward": model.register_full_backward_hook,
    }[hook]
    handle = register(note)
    try:
        torch.testing.assert_close(run(model), expected)
    finally:
        handle.remove()
    assert len(calls) == (n_evaluations if hook != "backward" else 0)


def test_a_hook_that_changes_the_score_changes_every_evaluation():
    model = ScoreModel(Linear(), VP)
    model.register_forward_hook(lambda module, arguments, score: 2 * score)
    for run, _ in SAMPLERS.values():
        torch.testing.assert_close(run(model), run(lambda x, t: model(x, t)))
        torch.testing.assert_close(run(model), run(Doubled(Linear(), VP)))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_another_forward_is_heeded(sampler):
    run, _ = SAMPLERS[sampler]
    model, patched = Doubled(Linear(), VP), ScoreModel(Linear(), VP)
    patched.forward = functools.partial(Doubled.forward, model)
    expected = run(lambda x, t: 2 * ScoreModel(Linear(), VP)(x, t))
    torch.testing.assert_close(run(model), expected)
    torch.testing.assert_close(run(patched), expected)


def test_a_compiled_model_is_called_as_such():
    model, calls = ScoreModel(Linear(), VP), []
    model._compiled_call_impl = lambda *arguments: calls.append(1) or model.forward(*arguments)
    euler_maruyama(VP, model, points(), n_steps=4)
    assert len(calls) == 5


def test_the_fast_path_is_still_taken_by_what_it_knows():
    model = ScoreModel(Linear(), VP)
    assert all(at_t.__name__ == "<lambda>" for at_t in on_grid(model, torch.tensor([0.5, 0.2])))


# Copies


PARTS = {
    "SDE": VP,
    "ScoreModel": ScoreModel(Linear(), VP),
    "exact_score": EXACT,
    "given": cg.given(ScoreModel(Linear(), VP), label=None),
    "at_time": at_time(at_noise_scale(EXACT, VP), VP),
    "in_basis": cg.in_basis(EXACT, torch.eye(2)),
} | {name: guidance(EXACT) for name, guidance in GUIDED.items() if name != "classifier_free"}


@pytest.mark.parametrize("there_and_back", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
@pytest.mark.parametrize("part", PARTS)
def test_copies_are_as_good(part, there_and_back):
    thing, x = PARTS[part], points()
    copied = there_and_back(thing)
    if part == "SDE":
        assert copied.sigma(0.3) == thing.sigma(0.3)
    else:
        assert torch.equal(copied(x, 0.4), thing(x, 0.4))
        assert euler_maruyama(VPSDE(), copied, x, n_steps=2).shape == x.shape
        with pytest.raises(ValueError, match="score belongs to VPSDE"):
            euler_maruyama(VESDE(), copied, x, n_steps=2)


@pytest.mark.parametrize("sample_times", [time_sampler(VP), log_normal_times(VP)])
def test_samplers_of_times_can_be_pickled(sample_times):
    copied = pickle.loads(pickle.dumps(sample_times))
    assert torch.equal(copied(8, generator()), sample_times(8, generator()))


def test_channels_last_changes_nothing():
    x = torch.randn(3, 2, 4, 4, generator=generator())
    other = x.to(memory_format=torch.channels_last)
    run = functools.partial(euler_maruyama, VP, lambda x, t: -x, n_steps=5)
    torch.testing.assert_close(run(other, generator=generator()), run(x, generator=generator()))


# Labels


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_labels_may_be_bytes(dtype):
    labels, x = torch.tensor([0, 1, 2, 1], dtype=dtype), points()
    network = lab.TimeMLP(2, width=8, depth=1, n_classes=3, generator=generator())
    nn.init.normal_(network.trunk.last.weight, generator=generator())
    model = ScoreModel(network, VP)
    assert torch.equal(model(x, 0.4, label=labels), model(x, 0.4, label=labels.long()))
    losses = [score_matching_loss(model, VP, x, labels=one, generator=generator()) for one in (labels, labels.long())]
    assert losses[0] == losses[1]


def test_labels_may_lie_elsewhere():
    labels, x = torch.tensor([0, 1, 2, 1]), points().to("meta")
    model = ScoreModel(lab.TimeMLP(2, n_classes=3).to("meta"), VP)
    assert score_matching_loss(model, VP, x, labels=labels, p_drop=0.5).is_meta
    assert cg.classifier_loss(lab.NoisyClassifier(2, 3).to("meta"), VP, x, labels).is_meta


# Operators


def by_numpy(factor):
    return lambda x: torch.from_numpy(factor.numpy() * x.numpy())


FACTOR = torch.tensor([2.0, 0.5])
SEEN = torch.tensor([[0.7, -0.2]])


def observations(dtype=torch.float32):
    factor, y = FACTOR.to(dtype), SEEN.to(dtype)

    def times(x):
        return factor * x

    def detached(x):
        return factor * x.detach()

    def detached_in_part(x):
        return factor * (0.5 * x + 0.5 * x.detach())

    return {
        "matrix": cg.LinearObservation(torch.diag(factor), y, 0.3),
        "pair": cg.LinearObservation((times, times), y, 0.3),
        "NumPy": cg.LinearObservation((by_numpy(factor), by_numpy(factor)), y, 0.3),
        "detached": cg.LinearObservation((detached, detached), y, 0.3),
        "detached in part": cg.LinearObservation((detached_in_part, times), y, 0.3),
        "alone": cg.LinearObservation(times, y, 0.3, event_shape=(2,)),
    }


@pytest.mark.parametrize("kind", [name for name in observations() if name != "matrix"])
@pytest.mark.parametrize("guidance", [cg.diffusion_posterior, cg.pseudoinverse_guidance])
def test_an_operator_of_any_kind_guides_like_its_matrix(guidance, kind):
    x = points().requires_grad_()
    results = []
    for name in ("matrix", kind):
        guided = guidance(EXACT, VP, observations()[name])(x, 0.4)
        (second,) = torch.autograd.grad(guided.square().sum(), x)
        results.append((guided, second))
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-5)


def test_one_mask_for_each_sample():
    masks, x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]), points()

    def hide(x):
        return masks * x

    seen = cg.LinearObservation((hide, hide), hide(SEEN.expand(4, 2)), 0.3)
    guided = cg.pseudoinverse_guidance(EXACT, VP, seen)(x, 0.4)
    for row in range(4):
        alone = cg.LinearObservation(torch.diag(masks[row]), (masks[row] * SEEN), 0.3)
        expected = cg.pseudoinverse_guidance(EXACT, VP, alone)(x[row : row + 1], 0.4)
        torch.testing.assert_close(guided[row : row + 1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_adjoint_is_tested_in_every_precision(dtype):
    blur = torch.randn(64, 64, generator=generator()) / 8
    y = torch.zeros(1, 64, dtype=dtype)

    def forward(x):
        return (x.float() @ blur.T).to(dtype)

    def adjoint(y):
        return (y.float() @ blur).to(dtype)

    cg.LinearObservation((forward, adjoint), y, 0.1)  # single precision inside, whatever the outside
    for wrong in (forward, lambda y: -adjoint(y), lambda y: 2 * adjoint(y), lambda y: adjoint(y).roll(1, 1)):
        with pytest.raises(ValueError, match="operator needs its adjoint"):
            cg.LinearObservation((forward, wrong), y, 0.1)


@pytest.mark.parametrize("off", [1e-4, -1e-4])
def test_an_adjoint_that_is_nearly_right_is_refused(off):
    blur = torch.randn(64, 64, generator=generator()) / 8
    with pytest.raises(ValueError, match="operator needs its adjoint"):
        cg.LinearObservation((lambda x: x @ blur.T, lambda y: (1 + off) * (y @ blur)), torch.zeros(1, 64), 0.1)


def test_an_operator_that_hides_little_from_autograd_is_given_its_adjoint():
    def little(x):
        return FACTOR * (0.999 * x + 0.001 * x.detach())

    x, seen = points(), cg.LinearObservation((little, lambda y: FACTOR * y), SEEN, 0.3)
    expected = cg.diffusion_posterior(EXACT, VP, observations()["matrix"], limit=None)(x, 0.4)
    guided = cg.diffusion_posterior(EXACT, VP, seen, limit=None)(x, 0.4)
    torch.testing.assert_close(guided, expected, rtol=2e-5, atol=2e-5)


def test_an_operator_alone_needs_the_shape_of_a_point():
    with pytest.raises(ValueError, match="give event_shape"):
        cg.LinearObservation(lambda x: x, SEEN, 0.3)
    with pytest.raises(ValueError, match="operator must be differentiable where no adjoint is given"):
        cg.LinearObservation(lambda x: x.detach(), SEEN, 0.3, event_shape=(2,))


# Points that are numbers, and NumPy's


def test_points_may_be_numbers():
    x = torch.randn(6, generator=generator())
    assert score_matching_loss(lambda x, t: -x, VP, x, generator=generator()) == score_matching_loss(
        lambda x, t: -x, VP, x[:, None], generator=generator()
    )
    seen = cg.LinearObservation(torch.ones(1, 1), torch.tensor([0.7]), 0.3)
    for guidance in (cg.diffusion_posterior, cg.pseudoinverse_guidance):
        guided = guidance(lambda x, t: -x, VP, seen)
        torch.testing.assert_close(guided(x, 0.4), guided(x[:, None], 0.4)[:, 0])


def test_numpy_numbers_are_numbers():
    sde = VPSDE(np.float32(0.1), np.float64(20))
    one = euler_maruyama(
        sde, lambda x, t: -x, points(), n_steps=np.int64(3), t_min=np.float32(0.01), generator=generator()
    )
    two = euler_maruyama(VP, lambda x, t: -x, points(), n_steps=3, t_min=0.01, generator=generator())
    torch.testing.assert_close(one, two)


# A signal below all rounding


@pytest.mark.parametrize("beta_max", [200.0, 1000.0, 5000.0])
@pytest.mark.parametrize("kind", [VPSDE, SubVPSDE])
def test_an_sde_that_drowns_its_signal_works_or_says_so(kind, beta_max):
    sde, x = kind(0.1, beta_max), points(3000)
    for spacing in ("uniform", "karras", "share", "angle", "log"):
        grid = sde.time_grid(40, spacing=spacing)
        assert grid[0] == 1
        assert bool((grid.diff() < 0).all())
    assert ScoreModel(Linear(), sde)(x, 1.0).isfinite().all()
    assert time_sampler(sde, uniform_in="log_noise")(100, generator()).isfinite().all()
    with pytest.raises(ValueError, match="t must leave a signal in x"):
        sde.denoise(lambda x, t: -x, x, 1.0)
    with pytest.raises(ValueError, match=r"t must leave a signal in x, or weight\(t\) counts"):
        ScoreModel(Linear(), sde).weight(torch.tensor(1.0))
    guided = cg.pseudoinverse_guidance(sde.exact_score(LAW), sde, matrix())
    assert torch.equal(guided(x, 1.0), sde.exact_score(LAW)(x, 1.0))  # y has nothing to say there
    posterior = LAW.condition(torch.tensor([[1.0, 0.5]]), torch.tensor([0.7]), 0.3)
    t = sde.time_of(1.0)
    torch.testing.assert_close(
        cg.condition(sde.exact_score(LAW), lambda x, t: _exact(sde, x, t))(x, t),
        sde.exact_score(posterior)(x, t),
        rtol=1e-3,
        atol=1e-3,
    )


@pytest.mark.parametrize("beta_max", [80.0, 200.0])
def test_a_weight_is_refused_where_it_would_count_rounding(beta_max):
    model = ScoreModel(Linear(), VPSDE(0.1, beta_max))
    early = model.sde.time_of(1e5)
    assert abs(model.weight(early) / (1e10 * model.sde.sigma(early) ** 2) - 1) < 1e-3
    assert model.weight(early.half()).dtype == torch.float32
    with pytest.raises(ValueError, match=r"t must leave a signal in x, or weight\(t\) counts nothing but rounding"):
        score_matching_loss(model, model.sde, points(), weighting=model.weight, sample_times=lambda n, g: torch.ones(n))


def _exact(sde, x, t):
    """The likelihood of the observation at a noisy point, by Bayes."""
    posterior = LAW.condition(torch.tensor([[1.0, 0.5]]), torch.tensor([0.7]), 0.3)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    return posterior.diffuse(alpha, sigma).log_prob(x) - LAW.diffuse(alpha, sigma).log_prob(x)
