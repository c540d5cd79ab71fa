"""The flow in other people's programs: with gradients, in any mode, and with scores that fail on the way."""

import copy
import math
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchdiffeq import odeint

from scorebook.lab.distributions import GaussianMixture
from scorebook.lab.networks import TimeMLP
from scorebook.probability_flow import encode, interpolate, log_prob, sample, velocity
from scorebook.score_matching import score_of
from scorebook.sde import VESDE, VPSDE, ScoreModel, SubVPSDE

F64 = torch.float64
EACH_SDE = pytest.mark.parametrize("sde", [VESDE(0.01, 50.0), VPSDE(), SubVPSDE()], ids=repr)
ADAPTIVE = ["dopri5", "dopri8", "bosh3", "adaptive_heun"]
FIXED = ["euler", "midpoint", "heun2", "heun3", "rk4", "adams"]
SOLVERS = [{"n_steps": 60}, {"rtol": 1e-6, "atol": 1e-6}]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def mixture():
    return GaussianMixture([0.4, 0.6], torch.tensor([[-1.0, 0.5], [1.0, -0.3]], dtype=F64), [0.3, 0.5])


def law_at(sde, t):
    t = torch.as_tensor(t, dtype=F64)
    return mixture().diffuse(sde.alpha(t), sde.sigma(t))


def line(x, t):
    return -x


def solver_of(method, n_steps=8):
    return {"method": method} if method in ADAPTIVE else {"method": method, "n_steps": n_steps}


# Scores that are cut off from autograd


def no_grad(x, t):
    with torch.no_grad():
        return VPSDE().exact_score(mixture())(x, t)


def no_grad_part(x, t):
    """Half a line that is recorded, and the rest that is not."""
    with torch.no_grad():
        rest = VPSDE().exact_score(mixture())(x, t) + x
    return rest - x


def energy(x, t):
    log_p = law_at(VPSDE(), t).log_prob(x)
    return torch.autograd.grad(log_p.sum(), x)[0]


def energy_of_copy(x, t):
    with torch.enable_grad():
        return energy(x.detach().requires_grad_(), t)


def through_numpy(x, t):
    return torch.as_tensor(np.tanh(x.detach().numpy()))


CUT = [no_grad, no_grad_part, energy, energy_of_copy, through_numpy]
CALLS = {
    "log_prob": lambda score, x, **solver: log_prob(VPSDE(), score, x, **solver),
    "hutchinson": lambda score, x, **solver: log_prob(VPSDE(), score, x, divergence="hutchinson", **solver),
    "differentiable": lambda score, x, **solver: log_prob(VPSDE(), score, x, differentiable=True, **solver),
    "with_log_prob": lambda score, x, **solver: sample(VPSDE(), score, x, with_log_prob=True, **solver),
}


@pytest.mark.parametrize(
    "solver", [{"n_steps": 4}, {"method": "heun2", "n_steps": 4}, {}], ids=["adams", "heun2", "dopri5"]
)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("score", CUT)
def test_the_density_of_a_cut_score_is_refused(score, call, solver):
    x = mixture().sample(5, generator=generator())
    with pytest.raises(ValueError, match=r"score must be differentiable in x .*create_graph=True"):
        CALLS[call](score, x, **solver)


@pytest.mark.parametrize("call", [sample, encode])
def test_gradients_through_a_cut_score_are_refused(call):
    x = torch.randn(5, 2, generator=generator(), dtype=F64, requires_grad=True)
    with pytest.raises(ValueError, match="score must be differentiable in x"):
        call(VPSDE(), no_grad_part, x, n_steps=4, differentiable=True)


@EACH_SDE
@pytest.mark.parametrize("solver", SOLVERS, ids=["adams", "dopri5"])
@pytest.mark.parametrize("made", ["outside", "inside"])
def test_in_inference_mode_the_density_is_the_closed_form(sde, solver, made):
    x, law = law_at(sde, 1e-3).sample(6, generator=generator()), mixture()
    truth, prior = law_at(sde, 1e-3).log_prob(x), law_at(sde, 1.0)
    with torch.inference_mode():
        if made == "inside":
            law, x, prior = mixture(), x.clone(), law_at(sde, 1.0)
        found = [
            log_prob(sde, sde.exact_score(law), x, prior=prior, **solver),
            log_prob(
                sde,
                lambda x, t: score_of(lambda x: law.diffuse(sde.alpha(t), sde.sigma(t)).log_prob(x), x),
                x,
                prior=prior,
                **solver,
            ),
        ]
    for density in found:
        assert (density - truth).abs().max() < 1e-3
        assert not density.is_inference()
    assert truth.abs().max() > 0.5


@EACH_SDE
@pytest.mark.parametrize(
    "solver", [{"method": "rk4", "n_steps": 100}, {"rtol": 1e-8, "atol": 1e-8}], ids=["rk4", "dopri5"]
)
def test_a_score_that_is_constant_in_x_goes_on_to_give_no_divergence(sde, solver):
    """A constant score carries all points alike: the volume changes by the drift alone."""
    x = torch.randn(5, 2, generator=generator(), dtype=F64)
    factor = sde.alpha(1.0) / sde.alpha(1e-3)
    for constant in (lambda x, t: torch.zeros_like(x), lambda x, t: torch.full((5, 2), 1e-3, dtype=F64)):
        end = encode(sde, constant, x, **solver)
        found = log_prob(sde, constant, x, **solver)
        assert (found - sde.prior_log_prob(end) - 2 * factor.log()).abs().max() < 1e-3


# Gradients


@EACH_SDE
@pytest.mark.parametrize("solver", SOLVERS, ids=["adams", "dopri5"])
def test_the_gradient_of_the_density_is_the_score(sde, solver):
    x = law_at(sde, 1e-3).sample(4, generator=generator()).requires_grad_()
    density = log_prob(sde, sde.exact_score(mixture()), x, prior=law_at(sde, 1.0), differentiable=True, **solver)
    assert (density.detach() - law_at(sde, 1e-3).log_prob(x.detach())).abs().max() < 1e-4
    (found,) = torch.autograd.grad(density.sum(), x)
    assert (found - law_at(sde, 1e-3).score(x.detach())).abs().max() < 1e-4


MEAN, STD = 0.7, 0.4


def gaussian_score(sde, mean, std):
    def score(x, t):
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        return (alpha * mean - x) / (alpha**2 * std**2 + sigma**2)

    return score


@EACH_SDE
@pytest.mark.parametrize(
    "solver",
    [{"n_steps": 200}, *({"method": m, "rtol": 1e-6, "atol": 1e-6} for m in ("dopri5", "dopri8", "bosh3"))],
    ids=["adams", "dopri5", "dopri8", "bosh3"],
)
def test_gradients_of_samples_codes_and_densities_are_those_of_the_closed_forms(sde, solver):
    """A Gaussian's flow keeps the standardised deviation; mean and deviation of the data are the score's parameters."""
    mean, std = (torch.tensor(value, dtype=F64, requires_grad=True) for value in (MEAN, STD))
    x = MEAN + STD * torch.randn(5, 2, generator=generator(), dtype=F64)
    z = (sde.prior_std * torch.randn(5, 2, generator=generator(1), dtype=F64)).requires_grad_()
    x.requires_grad_()
    (a, b), (e, f) = ((sde.alpha(t), sde.sigma(t)) for t in (1.0, 1e-3))
    ends = [torch.sqrt(alpha**2 * std**2 + sigma**2) for alpha, sigma in ((a, b), (e, f))]
    code = a * mean + (x - e * mean) * ends[0] / ends[1]
    expected = [
        e * mean + (z - a * mean) * ends[1] / ends[0],
        code / sde.prior_std,
        sde.prior_log_prob(code) + 2 * torch.log(ends[0] / ends[1]),
    ]
    score = gaussian_score(sde, mean, std)
    found = [
        sample(sde, score, z, differentiable=True, **solver),
        encode(sde, score, x, differentiable=True, **solver) / sde.prior_std,
        log_prob(sde, score, x, differentiable=True, **solver),
    ]
    for ours, truth in zip(found, expected, strict=True):
        weights = torch.linspace(0.5, 1.5, truth.numel(), dtype=F64).reshape(truth.shape)
        options = {"grad_outputs": weights, "retain_graph": True, "allow_unused": True}
        for mine, closed in zip(
            *(torch.autograd.grad(y, [mean, std, x, z], **options) for y in (ours, truth)), strict=True
        ):
            if closed is None:
                assert mine is None
            else:
                torch.testing.assert_close(mine, closed, rtol=1e-3, atol=1e-3)


def test_gradients_reach_the_weights_of_a_model_as_differences_do():
    torch.manual_seed(0)
    model = ScoreModel(TimeMLP((2,), width=8, depth=1), VPSDE()).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator())
    x = mixture().sample(4, generator=generator())
    parameters = list(model.parameters())

    def value(**options):
        return log_prob(VPSDE(), model, x, n_steps=6, divergence="hutchinson", generator=generator(), **options).sum()

    gradients = torch.autograd.grad(value(differentiable=True), parameters)
    directions = [torch.randn(p.shape, generator=generator(1), dtype=F64) for p in parameters]
    with torch.no_grad():
        ends = []
        for h in (1e-5, -2e-5):
            for p, d in zip(parameters, directions, strict=True):
                p += h * d
            ends.append(value())
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    assert abs((ends[0] - ends[1]) / 2e-5 - slope) < 1e-5 * abs(slope)
    assert abs(slope) > 1e-2


@pytest.mark.parametrize("call", [sample, encode, log_prob])
def test_nothing_is_recorded_unless_asked(call):
    scale = torch.ones((), dtype=F64, requires_grad=True)
    x = torch.randn(3, 2, generator=generator(), dtype=F64, requires_grad=True)
    for solver in ({"n_steps": 3}, {"method": "rk4", "n_steps": 3}, {}):
        plain = call(VPSDE(), lambda x, t: -scale * x, x, **solver)
        recorded = call(VPSDE(), lambda x, t: -scale * x, x, differentiable=True, **solver)
        assert not plain.requires_grad
        assert recorded.requires_grad
        torch.testing.assert_close(plain, recorded.detach())


@pytest.mark.parametrize("method", ["adams", "heun2"])
def test_what_is_inside_the_score_is_not_kept_for_the_backward_pass(method):
    """A wide score, many steps: what is saved for gradients is a few states a step and none of the width."""
    kept = []

    def wide(x, t):
        return -x - 1e-3 * torch.tanh(x.repeat(1, 500)).reshape(len(x), 500, 2).mean(1)

    def keep(tensor):
        copy = tensor.detach().clone()  # a result that a graph saved would keep itself alive
        kept.append(weakref.ref(copy))
        return copy

    x = torch.randn(4, 2, generator=generator(), requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        end = sample(VPSDE(), wide, x, method=method, n_steps=20, differentiable=True)
    sizes = [tensor().numel() for tensor in kept if tensor() is not None]
    assert max(sizes, default=0) <= x.numel()
    assert sum(sizes) <= 20 * 10 * x.numel()
    assert end.requires_grad


# Samples with their density


@EACH_SDE
@pytest.mark.parametrize("solver", SOLVERS, ids=["adams", "dopri5"])
def test_samples_come_with_their_density(sde, solver):
    z = sde.sample_prior((6, 2), generator=generator(), dtype=F64)
    score, prior = sde.exact_score(mixture()), law_at(sde, 1.0)
    x, density = sample(sde, score, z, with_log_prob=True, prior=prior, **solver)
    assert (density - law_at(sde, 1e-3).log_prob(x)).abs().max() < 2e-4
    assert (density - log_prob(sde, score, x, prior=prior, **solver)).abs().max() < 4e-4
    assert (x - sample(sde, score, z, **solver)).abs().max() < 1e-4
    # By default the start is a draw of the SDE's own prior.
    _, usual = sample(sde, score, z, with_log_prob=True, **solver)
    torch.testing.assert_close(usual - sde.prior_log_prob(z), density - prior.log_prob(z))


def test_the_densities_along_the_path_are_those_of_each_time():
    sde, grid = VPSDE(), torch.tensor([1.0, 0.6, 0.2, 1e-3], dtype=F64)
    z = law_at(sde, 1.0).sample(5, generator=generator())
    path, density = sample(
        sde, sde.exact_score(mixture()), z, times=grid, trajectory=True, with_log_prob=True, prior=law_at(sde, 1.0)
    )
    assert path.shape == (4, 5, 2)
    for t, x, found in zip(grid, path, density, strict=True):
        assert (found - law_at(sde, t).log_prob(x)).abs().max() < 1e-3


def test_the_density_of_samples_may_be_seen_along_probes():
    sde = VPSDE()
    z = law_at(sde, 1.0).sample(1, generator=generator()).repeat(500, 1)
    score, options = sde.exact_score(mixture()), {"n_steps": 20, "with_log_prob": True}
    exact = sample(sde, score, z[:1], **options)[1]
    seen = sample(sde, score, z, divergence="hutchinson", generator=generator(), **options)[1]
    assert abs(seen.mean() - exact) < 4 * seen.std() / math.sqrt(500)
    assert seen.std() > 1e-3
    with pytest.raises(TypeError, match=r"'divergence' .* with_log_prob=True"):
        sample(sde, score, z, n_steps=2, divergence="hutchinson")
    with pytest.raises(TypeError, match=r"no keyword 'n_step'; .*n_steps.* n_projections"):
        sample(sde, score, z, n_step=2)


# Scores that fail on the way


def fails_below(t_bad, rows=(1, 3)):
    def score(x, t):
        s = -x
        return s.index_fill(0, torch.tensor(rows), math.nan) if float(t) < t_bad else s

    return score


@pytest.mark.parametrize("method", [*FIXED, *ADAPTIVE])
def test_a_score_that_fails_half_way_is_reported_with_time_and_rows(method):
    x = torch.randn(6, 2, generator=generator())
    score = fails_below(0.5)
    for call, start in ((sample, 1.0), (log_prob, 1e-3), (encode, 1e-3)):
        with pytest.raises(RuntimeError, match=r"2 of 6 rows") as raised:
            call(VPSDE(), score, x, **solver_of(method))
        times = [float(part.split()[0].rstrip(":,")) for part in str(raised.value).split("t=")[1:] if part[0].isdigit()]
        if start == 1.0:
            assert min(times[:2]) < 0.5
        else:
            assert min(times[:2]) == pytest.approx(1e-3)


def test_a_divergence_that_fails_where_the_score_does_not_is_reported_too():
    def kinked(x, t):
        return -x.square().sqrt()  # whose derivative at 0 is not a number

    with pytest.raises(RuntimeError, match="1 of 2 rows"):
        log_prob(VPSDE(), kinked, torch.tensor([[1.0, 2.0], [0.0, 1.0]]), n_steps=3)


def test_an_adaptive_solver_returns_without_asserts_too():
    program = """
import math, sys
from scorebook.probability_flow import encode, log_prob, sample
from scorebook.sde import VPSDE
import torch
assert False
for method in ("dopri5", "dopri8", "bosh3", "adaptive_heun"):
    for call in (sample, encode, log_prob):
        try:
            call(VPSDE(), lambda x, t: math.nan * x, torch.ones(3, 2), method=method)
        except RuntimeError as error:
            if "not a number there, for 3 of 3 rows" in str(error):
                continue
        sys.exit(1)
try:
    sample(VPSDE(), lambda x, t: -1e12 * x, torch.ones(3, 2))
except RuntimeError as error:
    sys.exit("shrank to nothing" not in str(error))
sys.exit(1)
"""
    done = subprocess.run([sys.executable, "-OO", "-c", program], timeout=300, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr


# Memory, precision, numbers


def test_a_model_made_in_inference_mode_serves_outside_of_it():
    torch.manual_seed(0)
    model = ScoreModel(TimeMLP((2,), width=8, depth=1), VPSDE())
    with torch.inference_mode():
        made_inside = copy.deepcopy(model)
    x = torch.randn(4, 2, generator=generator(), requires_grad=True)
    for call in (sample, encode, log_prob):
        for solver in ({"n_steps": 4}, {"method": "heun2", "n_steps": 4}, {"rtol": 1e-3, "atol": 1e-3}):
            assert torch.equal(call(VPSDE(), made_inside, x, **solver), call(VPSDE(), model, x, **solver))
        found, expected = (
            torch.autograd.grad(call(VPSDE(), score, x, n_steps=4, differentiable=True).sum(), x)[0]
            for score in (made_inside, model)
        )
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("sigma_max", [100.0, 3000.0, 30000.0])
@pytest.mark.parametrize(
    "solver", [{"n_steps": 30}, {}, {"method": "heun2", "n_steps": 50}], ids=["adams", "dopri5", "heun2"]
)
def test_a_density_in_half_precision_takes_any_scale_of_noise(solver, sigma_max):
    """The square of such a scale is beyond float16, and so is what a divergence of the velocity sends back."""
    sde, law = VESDE(0.01, sigma_max), GaussianMixture([1.0], torch.tensor([[1.0, -1.0]]), 0.25)
    exact = sde.exact_score(law)
    x = law.sample(4, generator=generator()).half()

    def half(x, t):
        assert x.dtype == torch.float16
        return exact(x.float(), t).to(x.dtype)

    found, single = log_prob(sde, half, x, **solver), log_prob(sde, exact, x.float(), **solver)
    assert (found - single).abs().max() < 8 * torch.finfo(torch.float16).eps


@pytest.mark.parametrize("solver", [solver_of(method, 40) for method in FIXED], ids=str)
def test_samples_own_their_storage_and_no_other_state_is_kept(solver, most_alive):
    x = torch.randn(256, 64, generator=generator())
    for call in (sample, encode):
        result = call(VPSDE(), line, x, **solver)
        assert result.untyped_storage().nbytes() == x.untyped_storage().nbytes()
    assert most_alive(lambda: sample(VPSDE(), line, x, **solver)) < 16 * x.untyped_storage().nbytes()


@pytest.fixture
def most_alive():
    """The most bytes of tensors that a call made and that were alive at once."""

    class Alive(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.sizes, self.most = {}, 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, (list, tuple)) else [result]:
                if isinstance(tensor, torch.Tensor):
                    storage = tensor.untyped_storage()
                    key = storage.data_ptr()
                    if key not in self.sizes:
                        self.sizes[key] = storage.nbytes()
                        weakref.finalize(storage, self.sizes.pop, key, None)
            self.most = max(self.most, sum(self.sizes.values()))
            return result

    def measure(call):
        with Alive() as alive:
            call()
        return alive.most

    return measure


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@EACH_SDE
@pytest.mark.parametrize(
    "solver", [{"n_steps": 20}, {}, {"method": "heun2", "n_steps": 50}], ids=["adams", "dopri5", "heun2"]
)
def test_half_precision_is_as_good_as_its_rounding(dtype, sde, solver):
    law = mixture()
    single = GaussianMixture(law.weights.float(), law.means.float(), law.covariances.float())

    def score(x, t):
        assert x.dtype in (dtype, torch.float32)
        assert t.dtype == torch.float32
        return sde.exact_score(single)(x.float(), t).to(x.dtype)

    z = (sde.prior_std * torch.randn(6, 2, generator=generator())).to(dtype)
    found, exact = (sample(sde, score, start, **solver) for start in (z, z.float()))
    assert found.dtype == dtype
    assert (found.float() - exact).abs().max() < 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
@pytest.mark.parametrize("beta_max", [60.0, 200.0, 400.0, 4000.0])
@pytest.mark.parametrize("solver", [{"n_steps": 30}, {}], ids=["adams", "dopri5"])
def test_noise_may_drown_the_signal_by_any_factor(solver, beta_max, dtype):
    sde = VPSDE(0.1, beta_max)
    law = GaussianMixture([1.0], torch.tensor([[1.0, -1.0]], dtype=dtype), 0.25)
    z = torch.randn(4, 2, generator=generator(), dtype=dtype)
    alpha, sigma = (value.to(dtype) for value in (sde.alpha(1e-3), sde.sigma(1e-3)))
    exact = alpha * law.means + z * torch.sqrt(0.25 * alpha**2 + sigma**2)
    assert (sample(sde, sde.exact_score(law), z, **solver) - exact).abs().max() < 1e-3
    back = log_prob(sde, sde.exact_score(law), exact, **solver)
    assert (back - law.diffuse(alpha, sigma).log_prob(exact)).abs().max() < 3e-3


@pytest.mark.parametrize("beta_max", [200.0, 1500.0, 3000.0, 1e5])
@pytest.mark.parametrize("sde", [VPSDE, SubVPSDE])
@pytest.mark.parametrize(("spacing", "within"), [("share", 1e-4), ("angle", 1e-4), ("log", 0.05)])
def test_a_grid_whose_signal_underflows_is_stepped_through(sde, beta_max, spacing, within):
    sde, law = sde(0.1, beta_max), GaussianMixture([1.0], torch.tensor([[1.0, -1.0]], dtype=F64), 0.25)
    z = torch.randn(4, 2, generator=generator(), dtype=F64)
    alpha, sigma = sde.alpha(1e-3), sde.sigma(1e-3)
    exact = alpha * law.means + z * torch.sqrt(0.25 * alpha**2 + sigma**2)
    grid = {"method": "adams", "times": sde.time_grid(60, spacing=spacing, dtype=F64)}
    path = sample(sde, sde.exact_score(law), z, trajectory=True, **grid)
    assert path.shape == (61, 4, 2)
    assert torch.equal(path[0], z)
    assert (path[-1] - exact).abs().max() < within
    back = encode(sde, sde.exact_score(law), exact, trajectory=True, **grid)
    assert back.shape == (61, 4, 2)
    assert (back[-1] - z).abs().max() < 2 * within
    density = log_prob(sde, sde.exact_score(law), exact, **grid)
    assert (density - law.diffuse(alpha, sigma).log_prob(exact)).abs().max() < within


def test_where_all_signal_is_lost_nothing_moves():
    sde = VPSDE(0.1, 3000.0)
    z = torch.randn(4, 2, generator=generator(), dtype=F64)
    times = torch.tensor([1.0, 0.9, 0.8], dtype=F64)
    for call in (sample, encode):
        assert torch.equal(call(sde, sde.exact_score(mixture()), z, method="adams", times=times), z)


@EACH_SDE
@pytest.mark.parametrize("method", ADAPTIVE)
def test_the_velocity_serves_a_solver_that_steps_beyond_its_last_time(sde, method):
    z = law_at(sde, 1.0).sample(4, generator=generator())
    score, span = sde.exact_score(mixture()), torch.tensor([1.0, 1e-3], dtype=F64)
    loose = odeint(velocity(sde, score), z, span, method=method, rtol=1e-4, atol=1e-4)[-1]
    options = {"first_step": 1e-3, "step_t": span[-1:]}
    tight = odeint(velocity(sde, score), z, span, method=method, rtol=1e-4, atol=1e-4, options=options)[-1]
    exact = sample(sde, score, z, rtol=1e-9, atol=1e-9)
    assert (loose - exact).abs().max() < 0.02
    assert (tight - exact).abs().max() < 2e-3


@EACH_SDE
def test_beyond_its_interval_the_velocity_is_mirrored_and_far_from_it_refused(sde):
    x = torch.randn(3, 2, generator=generator(), dtype=F64)
    field = velocity(sde, sde.exact_score(mixture()))
    for outside, inside in ((-0.1, 0.1), (1.25, 0.75), (torch.tensor([-0.2, 0.5, 1.5]), torch.tensor([0.2, 0.5, 0.5]))):
        assert torch.equal(field(outside, x), field(inside, x))
    for far in (-2.1, 3.1, torch.tensor([0.1, 5.0, 0.2])):
        with pytest.raises(ValueError, match=r"t must lie in \[0, 1\].*first_step.*step_t"):
            field(far, x)


def test_numbers_of_numpy_serve():
    x = torch.randn(3, 2, generator=generator())
    plain = sample(VPSDE(), line, x, n_steps=4, t_min=0.01)
    for number in (np.float16, np.float32, np.float64):
        t_min = number(0.01)
        found = sample(VPSDE(), line, x, n_steps=np.int64(4), t_min=t_min)
        torch.testing.assert_close(found, plain, rtol=1e-3, atol=1e-3)
        sample(VPSDE(), line, x, rtol=number(1e-3), atol=number(1e-3))
        interpolate(VPSDE(), line, x, x, np.array([0.5], dtype=number), n_steps=np.int32(2))
    log_prob(VPSDE(), line, x, n_steps=np.uint8(3), divergence="hutchinson", n_projections=np.int64(2))


@pytest.mark.parametrize(
    "solver", [{"n_steps": 4}, {"method": "rk4", "n_steps": 4}, {}], ids=["adams", "rk4", "dopri5"]
)
def test_the_default_device_is_not_that_of_the_flow(solver):
    x = torch.randn(3, 2, generator=generator())
    calls = [
        lambda: sample(VPSDE(), line, x, **solver),
        lambda: log_prob(VPSDE(), line, x, **solver),
        lambda: log_prob(VPSDE(), line, x, divergence="hutchinson", generator=generator(), **solver),
        lambda: interpolate(VPSDE(), line, x, x + 1, [0.25], **solver),
    ]
    for call in calls:
        expected = call()
        with torch.device("meta"):
            assert torch.equal(call(), expected)


# Interpolation


def test_interpolated_codes_have_lengths_and_angles_in_proportion():
    """Under standard normal data, whose flow stands still, the points are their own codes."""
    a, b = (torch.randn(50, 3, generator=generator(seed), dtype=F64) * 3**seed for seed in (0, 1))
    walk = interpolate(VPSDE(), line, a, b, [0.0, 0.3, 1.0], n_steps=20)
    torch.testing.assert_close(walk[[0, 2]], torch.stack([a, b]), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(walk[1].norm(dim=1), 0.7 * a.norm(dim=1) + 0.3 * b.norm(dim=1), rtol=1e-6, atol=1e-6)
    angle = torch.arccos(torch.cosine_similarity(a, b))
    torch.testing.assert_close(torch.arccos(torch.cosine_similarity(a, walk[1])), 0.3 * angle, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(torch.arccos(torch.cosine_similarity(walk[1], b)), 0.7 * angle, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_no_pair_is_interpolated_to_anything_longer_than_its_ends(dim, dtype):
    a, b = (torch.randn(500, dim, generator=generator(seed), dtype=dtype) for seed in (0, 1))
    a[:100] = -3 * b[:100]
    a[100:200] = -b[100:200] * (1 + 1e-6 * torch.randn(100, 1, generator=generator(2), dtype=dtype))
    a[200:300] = b[200:300]
    walk = interpolate(VPSDE(), line, a, b, torch.linspace(0, 1, 5), n_steps=20)
    longest = torch.maximum(a.norm(dim=1), b.norm(dim=1))
    assert (walk.norm(dim=2) <= longest * 1.001).all()
    assert (walk.diff(dim=0).norm(dim=2) <= longest * 0.9).all()  # an even walk: a quarter of a half circle at most
    torch.testing.assert_close(walk[[0, -1]], torch.stack([a, b]), rtol=1e-4, atol=1e-4)


def test_the_pair_of_the_line_is_joined_straight():
    walk = interpolate(VPSDE(), line, torch.tensor([[-1.0]]), torch.tensor([[1.2]]), [0.0, 0.5, 1.0], n_steps=20)
    torch.testing.assert_close(walk.flatten(), torch.tensor([-1.0, 0.1, 1.2]), rtol=0, atol=1e-4)


def test_opposite_codes_go_round_and_codes_of_no_length_straight():
    a, nothing, weights = torch.tensor([[3.0, 0.0, 1.0]]), torch.zeros(1, 3), [0.0, 0.25, 0.5, 1.0]
    round_ = interpolate(VPSDE(), line, a, -a, weights, n_steps=20)[:, 0]
    torch.testing.assert_close(round_.norm(dim=1), a.norm().expand(4), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(round_[2], a.norm() * torch.tensor([0.0, 1.0, 0.0]), rtol=1e-4, atol=1e-4)
    for ends, path in (((nothing, a), weights), ((a, nothing), [1 - w for w in weights])):
        straight = torch.tensor(path)[:, None] * a
        torch.testing.assert_close(
            interpolate(VPSDE(), line, *ends, weights, n_steps=20)[:, 0], straight, atol=1e-4, rtol=0
        )
    assert torch.equal(interpolate(VPSDE(), line, nothing, nothing, weights, n_steps=4), torch.zeros(4, 1, 3))


# Hooks


@pytest.mark.parametrize("solver", [{"method": "rk4", "n_steps": 4}, {}], ids=["rk4", "any"])
def test_a_hook_on_a_model_sees_every_evaluation(solver):
    model, seen, plain = ScoreModel(TimeMLP((2,), width=8, depth=1), VPSDE()), [], []
    model.network.register_forward_hook(lambda *call: plain.append(1))
    model.register_forward_hook(lambda *call: seen.append(1))
    sample(VPSDE(), model, torch.randn(3, 2, generator=generator()), **solver)
    assert len(seen) == len(plain) > 3
