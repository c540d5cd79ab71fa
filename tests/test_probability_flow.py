"""The flow is held to the marginals of its SDE, to exact densities, and to its own way back."""

import functools
import math
import weakref

import numpy as np
import pytest
import torch

from scorebook.controllable_generation import classifier_free, condition, given
from scorebook.lab.distributions import GaussianMixture
from scorebook.lab.metrics import energy_distance
from scorebook.lab.networks import TimeMLP
from scorebook.lab.training import fit
from scorebook.probability_flow import (
    _adams,
    bits_per_dim,
    dequantize,
    encode,
    flow_matching_loss,
    interpolate,
    log_prob,
    sample,
    score_from_velocity,
    velocity,
)
from scorebook.sde import VESDE, VPSDE, ScoreModel, StraightPath, SubVPSDE, data_std_of, sde_of

F64 = torch.float64
EACH_SDE = pytest.mark.parametrize("sde", [VESDE(0.01, 80.0), VPSDE(), SubVPSDE(), StraightPath()], ids=repr)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def mixture(dtype=F64):
    """Three modes in the plane, of about unit scale as a whole."""
    return GaussianMixture(
        torch.tensor([0.5, 0.3, 0.2], dtype=dtype),
        torch.tensor([[-1.0, -0.3], [0.9, -0.6], [0.4, 1.2]], dtype=dtype),
        torch.tensor(
            [[[0.2, 0.08], [0.08, 0.15]], [[0.1, 0.0], [0.0, 0.25]], [[0.12, -0.05], [-0.05, 0.1]]], dtype=dtype
        ),
    )


def law_at(sde, t):
    t = torch.as_tensor(t, dtype=F64)
    return mixture().diffuse(sde.alpha(t), sde.sigma(t))


def normal_score(x, t):
    """The score of standard normal data under a variance-preserving SDE, at all times."""
    return -x


@EACH_SDE
@pytest.mark.parametrize("t", [0.05, 0.4, 0.9])
def test_the_velocity_carries_the_density(sde, t):
    """The continuity equation, dp/dt + div(p v) = 0, with all terms by autograd: it fixes the factor one half."""
    x = (
        mixture()
        .diffuse(sde.alpha(torch.tensor(t, dtype=F64)), sde.sigma(torch.tensor(t, dtype=F64)))
        .sample(40, generator=generator())
    )
    x.requires_grad_()
    time = torch.full((40,), t, dtype=F64, requires_grad=True)
    log_p = mixture().diffuse(sde.alpha(time), sde.sigma(time)).log_prob(x)
    (rate,) = torch.autograd.grad(log_p.sum(), time, retain_graph=True)
    (gradient,) = torch.autograd.grad(log_p.sum(), x)
    v = velocity(sde, sde.exact_score(mixture()))(torch.tensor(t, dtype=F64), x)
    trace = sum(torch.autograd.grad(v[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(2))
    scale = (rate.abs() + trace.abs()).max()
    assert (rate + trace + (v * gradient).sum(1)).abs().max() < 1e-9 * scale


@EACH_SDE
def test_log_prob_is_exact_once_the_terminal_law_is(sde):
    t_min = 1e-5
    x = law_at(sde, t_min).sample(24, generator=generator())
    found = log_prob(sde, sde.exact_score(mixture()), x, t_min=t_min, rtol=1e-8, atol=1e-8, prior=law_at(sde, 1.0))
    assert (found - law_at(sde, t_min).log_prob(x)).abs().max() < 1e-6


@pytest.mark.parametrize(("sde", "allowed"), [(VESDE(0.01, 80.0), 0.1), (VPSDE(), 0.05), (SubVPSDE(), 0.05)], ids=repr)
def test_log_prob_differs_from_the_data_law_by_the_mismatch_of_the_prior(sde, allowed):
    x = mixture().sample(64, generator=generator())
    found = log_prob(sde, sde.exact_score(mixture()), x, t_min=1e-5, rtol=1e-6, atol=1e-6)
    exact = mixture().log_prob(x)
    assert (found - exact).abs().max() < allowed
    code = encode(sde, sde.exact_score(mixture()), x, t_min=1e-5, rtol=1e-6, atol=1e-6)
    mismatch = sde.prior_log_prob(code) - law_at(sde, 1.0).log_prob(code)
    start = law_at(sde, 1e-5).log_prob(x) - exact
    assert (found - exact - mismatch - start).abs().max() < 1e-3


@EACH_SDE
def test_decoding_undoes_encoding(sde):
    x = mixture().sample(64, generator=generator())
    score = sde.exact_score(mixture())
    code = encode(sde, score, x, rtol=1e-7, atol=1e-7)
    assert (sample(sde, score, code, rtol=1e-7, atol=1e-7) - x).abs().max() < 1e-3
    assert (code - x).abs().max() > 0.1


@EACH_SDE
def test_codes_of_data_follow_the_terminal_law(sde):
    n = 4000
    x = law_at(sde, 1e-3).sample(n, generator=generator())
    code = encode(sde, sde.exact_score(mixture()), x, rtol=1e-4, atol=1e-4)
    end = law_at(sde, 1.0)
    standardised = (code - end.mean) / end.covariance.diagonal().sqrt()
    assert standardised.mean(0).abs().max() < 4 / math.sqrt(n)
    assert (standardised.var(0) - 1).abs().max() < 4 * math.sqrt(2 / n)


@EACH_SDE
def test_the_flow_has_the_marginals_of_the_sde_on_the_way(sde):
    n = 4000
    grid = torch.tensor([1.0, 0.6, 0.2, 1e-3], dtype=F64)
    noise = law_at(sde, 1.0).sample(n, generator=generator())
    path = sample(sde, sde.exact_score(mixture()), noise, times=grid, rtol=1e-4, atol=1e-4, trajectory=True)
    assert torch.equal(path[0], noise)
    for t, x in zip(grid, path, strict=True):
        law = law_at(sde, t)
        deviation = x - law.mean
        spread = law.covariance.diagonal()
        assert ((deviation.mean(0) / (spread / n).sqrt()).abs() < 4).all()
        squares = deviation.square()
        assert (((squares.mean(0) - spread) / (squares.std(0) / math.sqrt(n))).abs() < 4).all()


def error_after(method, n_steps):
    sde = VPSDE()
    score = sde.exact_score(mixture())
    start = law_at(sde, 1.0).sample(32, generator=generator())
    exact = sample(sde, score, start, t_min=0.3, rtol=1e-10, atol=1e-10)
    return (sample(sde, score, start, method=method, n_steps=n_steps, t_min=0.3) - exact).abs().mean().item()


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("heun2", 2), ("heun3", 3), ("rk4", 4)])
def test_fixed_solvers_converge_with_their_order(method, order):
    n_steps = {1: 80, 2: 40, 3: 40, 4: 40}[order]
    found = math.log2(error_after(method, n_steps) / error_after(method, 2 * n_steps))
    assert abs(found - order) < 0.35


def order(error, n_steps):
    """Measured order of convergence between ``n_steps`` and twice as many."""
    return math.log2(error(n_steps) / error(2 * n_steps))


MEAN, STD = 0.7, 0.4


def gaussian():
    return GaussianMixture([1.0], torch.tensor([[MEAN, -MEAN]], dtype=F64), STD**2)


def gaussian_path(sde, x, t, s):
    """The exact flow of Gaussian data from t to s: it keeps the standardised deviation from the mean."""
    (a, b), (e, f) = ((sde.alpha(at), sde.sigma(at)) for at in (t, s))
    centre = gaussian().means[0]
    return e * centre + (x - a * centre) * torch.sqrt((e**2 * STD**2 + f**2) / (a**2 * STD**2 + b**2))


@pytest.mark.parametrize("spacing", ["share", "karras", "log"])
@EACH_SDE
def test_adams_is_of_third_order_along_the_path_on_any_grid(sde, spacing):
    """Even steps and uneven ones, against the exact flow of a Gaussian."""
    z = sde.sample_prior((10, 2), generator=generator(), dtype=F64)

    def error(n_steps):
        grid = sde.time_grid(n_steps, spacing=spacing, dtype=F64)
        path = sample(sde, sde.exact_score(gaussian()), z, method="adams", times=grid, trajectory=True)
        assert path.shape == (n_steps + 1, 10, 2)
        assert torch.equal(path[-1], sample(sde, sde.exact_score(gaussian()), z, method="adams", times=grid))
        exact = torch.stack([gaussian_path(sde, z, grid[0], t) for t in grid])
        scale = torch.sqrt(sde.alpha(grid) ** 2 + sde.sigma(grid) ** 2)[:, None, None]
        return ((path - exact) / scale).abs().max()

    assert abs(order(error, 100) - 3) < 0.35


@EACH_SDE
def test_adams_encodes_with_third_order_and_comes_back(sde):
    law = sde.exact_score(gaussian())
    grid = sde.time_grid(1, dtype=F64)
    x = gaussian_path(sde, gaussian().sample(10, generator=generator()), torch.zeros((), dtype=F64), grid[-1])
    exact = gaussian_path(sde, x, grid[-1], grid[0])
    scale = sde.sigma(1.0)
    assert abs(order(lambda n: (encode(sde, law, x, n_steps=n) - exact).abs().max() / scale, 200) - 3) < 0.35
    assert (sample(sde, law, encode(sde, law, x, n_steps=200), n_steps=200) - x).abs().max() < 1e-3


@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
@EACH_SDE
def test_adams_has_the_likelihood_with_third_order(sde, divergence):
    """For isotropic data the Jacobian is a multiple of the identity, which a probe of random signs sees exactly."""
    x = law_of_gaussian_at(sde, 1e-3).sample(5, generator=generator())
    truth = law_of_gaussian_at(sde, 1e-3).log_prob(x)

    def error(n_steps):
        found = log_prob(
            sde,
            sde.exact_score(gaussian()),
            x,
            n_steps=n_steps,
            prior=law_of_gaussian_at(sde, 1.0),
            divergence=divergence,
            generator=generator(),
        )
        return (found - truth).abs().max()

    assert abs(order(error, 100) - 3) < 0.35
    assert error(200) < 1e-3


def law_of_gaussian_at(sde, t):
    t = torch.as_tensor(t, dtype=F64)
    return gaussian().diffuse(sde.alpha(t), sde.sigma(t))


@pytest.mark.parametrize("n_steps", [1, 2, 3, 7])
@pytest.mark.parametrize("scale_of_data", [0.2, 1.0, 30.0])
@EACH_SDE
def test_adams_is_exact_for_normal_data(sde, scale_of_data, n_steps):
    """In the angle their flow stands still: the sample is the start, scaled, after any number of steps."""
    data = GaussianMixture([1.0], torch.zeros(1, 3, dtype=F64), scale_of_data**2)
    z = sde.sample_prior((20, 3), generator=generator(), dtype=F64)
    scale = [torch.hypot(scale_of_data * sde.alpha(t), sde.sigma(t)) for t in (1.0, 1e-3)]
    found = sample(sde, sde.exact_score(data), z, n_steps=n_steps)
    torch.testing.assert_close(found, z * scale[1] / scale[0], rtol=1e-9, atol=1e-9)


def stretched(scale):
    """The mixture, of the standard deviation ``scale``."""
    law = mixture()
    factor = scale / law.covariance.diagonal().mean().sqrt()
    return GaussianMixture(law.weights, factor * (law.means - law.mean), factor**2 * law.covariances)


@EACH_SDE
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0, 50.0])
def test_adams_takes_data_of_any_scale(sde, scale):
    """Counted in the data's own scale the path hardly hangs on it; counted in 1, sixteen steps miss wide data."""
    score = sde.exact_score(stretched(scale))
    z = sde.sample_prior((100, 2), generator=generator(), dtype=F64)
    exact = sample(sde, score, z, rtol=1e-8, atol=1e-8)
    x = stretched(scale).sample(100, generator=generator())
    densities = log_prob(sde, score, x, rtol=1e-8, atol=1e-8)

    def errors(**options):
        found = sample(sde, score, z, n_steps=16, **options)
        density = log_prob(sde, score, x, n_steps=16, **options) - densities
        way = encode(sde, score, exact, n_steps=16, **options) - z
        return torch.stack([e.square().mean().sqrt() for e in ((found - exact) / scale, density, way / sde.prior_std)])

    in_its_scale, in_one = errors(), errors(data_std=1.0)
    assert (in_its_scale < torch.tensor([1.5e-3, 1.5e-2, 1.5e-3])).all()
    if scale != 1:
        assert (in_one > 5 * in_its_scale).all()
    single = [interpolate(sde, score, x[:3], x[3:6], [0.5], n_steps=16, data_std=s) for s in (scale, 1.0)]
    there = interpolate(sde, score, x[:3], x[3:6], [0.5], rtol=1e-8, atol=1e-8)
    assert (single[0] - there).abs().max() <= (single[1] - there).abs().max()


@pytest.mark.parametrize("n_steps", range(5, 20))
@EACH_SDE
def test_one_more_step_of_adams_does_no_harm(sde, n_steps):
    for law in ("plane", "line"):
        score, z, exact = exactly_solved(sde, law)
        fewer, more = (
            (sample(sde, score, z, n_steps=n) - exact).square().mean().sqrt() for n in (n_steps, n_steps + 1)
        )
        assert more < 1.05 * fewer


@functools.cache
def exactly_solved(sde, name):
    law = {
        "plane": mixture(),
        "line": GaussianMixture([0.3, 0.7], torch.tensor([[-1.5], [1.0]], dtype=F64), torch.tensor([0.04, 0.09])),
    }[name]
    z = sde.sample_prior((100, law.dim), generator=generator(), dtype=F64)
    return sde.exact_score(law), z, sample(sde, sde.exact_score(law), z, rtol=1e-7, atol=1e-7)


def test_the_scale_of_the_data_is_what_the_score_says_unless_one_is_given():
    sde = VPSDE()
    model = ScoreModel(TimeMLP(2, width=8, depth=1, generator=generator()), sde, data_std=7.0)
    bare, x = lambda x, t: model(x, t), sde.sample_prior((5, 2), generator=generator())
    for call in (sample, encode, log_prob):
        plain, scaled = (call(sde, bare, x, n_steps=6, **options) for options in ({}, {"data_std": 7.0}))
        assert not torch.allclose(plain, scaled, rtol=1e-3)
        assert torch.equal(plain, call(sde, bare, x, n_steps=6, data_std=1))
        assert torch.equal(plain, call(sde, model, x, n_steps=6, data_std=1.0))
        for said in (model, model.forward, torch.optim.swa_utils.AveragedModel(model), given(model)):
            assert torch.equal(scaled, call(sde, said, x, n_steps=6))
    exact = sde.exact_score(stretched(7.0))
    for said in (exact, condition(exact, lambda x, t: 0 * x.sum(1)), classifier_free(exact, exact, 2.0)):
        assert data_std_of(said) == pytest.approx(7.0)
    assert data_std_of(normal_score) is None


@EACH_SDE
def test_adams_lands_on_a_single_point_in_few_steps(sde):
    """One point makes the path a rotation: what is left is the error of a parabola through a sine."""
    point = torch.tensor([0.5, -0.3], dtype=F64)

    def score(x, t):
        return (sde.alpha(t) * point - x) / sde.sigma(t) ** 2

    z = sde.sample_prior((20, 2), generator=generator(), dtype=F64)
    end = sde.time_grid(1, dtype=F64)[-1]
    landed = sde.alpha(end) * point + sde.sigma(end) * (z - sde.alpha(1.0) * point) / sde.sigma(1.0)
    errors = [(sample(sde, score, z, n_steps=n) - landed).abs().max() for n in (10, 20)]
    assert errors[0] < 0.02
    assert errors[1] < 0.003


@pytest.mark.parametrize("data_std", [0.05, 1.0, 20.0])
@EACH_SDE
def test_adams_asks_once_a_step_at_even_shares_of_noise(sde, data_std):
    asked = []

    def score(x, t):
        asked.append(float(t))
        return sde.exact_score(mixture())(x, t)

    x = mixture().sample(4, generator=generator())
    sample(sde, score, x, n_steps=12, data_std=data_std)
    at = torch.tensor([*asked, 1e-3], dtype=F64)
    assert len(asked) == 12
    shares = sde.sigma(at) / (sde.alpha(at) * data_std + sde.sigma(at))
    torch.testing.assert_close(shares.diff(), shares.diff().mean().expand(12), rtol=1e-6, atol=0)
    asked.clear()
    encode(sde, score, x, n_steps=12, data_std=data_std)
    torch.testing.assert_close(torch.tensor(asked, dtype=F64), at.flip(0)[:-1], rtol=1e-6, atol=1e-9)


@EACH_SDE
def test_the_steps_of_double_precision_stop_at_times_of_double_precision(sde):
    asked = []

    def score(x, t):
        asked.append(float(t))
        return -x

    sample(sde, score, torch.zeros(1, 2, dtype=F64), method="euler", n_steps=7)
    assert asked == sde.time_grid(7, dtype=F64)[:-1].tolist()


@pytest.mark.parametrize(("n_steps", "foretold_by_a_line"), [(4, False), (8, False), (9, True), (30, True)])
def test_what_no_evaluation_corrects_is_foretold_by_a_line_and_in_few_steps_by_the_last_rate(
    n_steps, foretold_by_a_line
):
    """The integral of a rate that grows like time: every step that is corrected is right, and the last tells."""
    nodes = np.linspace(0.0, 1.0, n_steps + 1)
    *_, end = _adams(lambda k, state: torch.tensor(nodes[k], dtype=F64), torch.zeros((), dtype=F64), nodes)
    missing = 0.0 if foretold_by_a_line else 0.5 / n_steps**2
    assert end.item() == pytest.approx(0.5 - missing, abs=1e-12)


@EACH_SDE
@pytest.mark.parametrize("n", [10, 20, 50, 100])
def test_at_equal_evaluations_adams_is_nearest_to_the_exact_flow(sde, n):
    """Against the other solvers, each on the better of even times and Karras's."""
    score = sde.exact_score(mixture())
    start = law_at(sde, 1.0).sample(200, generator=generator())
    exact = sample(sde, score, start, rtol=1e-7, atol=1e-7)

    def error(**solver):
        return (sample(sde, score, start, **solver) - exact).square().sum(1).mean().sqrt()

    others = [
        error(method=method, times=sde.time_grid(n // calls, spacing=spacing, dtype=F64))
        for method, calls in (("euler", 1), ("heun2", 2), ("midpoint", 2), ("rk4", 4))
        for spacing in ("uniform", "karras")
    ]
    assert error(n_steps=n) < min(others)


def test_the_budget_decides_the_solver():
    """A number of steps asks for the multistep method; a grid of times or nothing for a tolerance."""
    sde = VPSDE()
    score = sde.exact_score(mixture())
    x = sde.sample_prior((8, 2), generator=generator(), dtype=F64)
    for call in (sample, encode, log_prob):
        assert torch.equal(call(sde, score, x, n_steps=5), call(sde, score, x, n_steps=5, method="adams"))
        assert torch.equal(call(sde, score, x), call(sde, score, x, method="dopri5"))
    assert len(sample(sde, score, x, method="dopri5", n_steps=3, trajectory=True)) == 4
    grid = torch.tensor([1.0, 0.5], dtype=F64)
    assert torch.equal(sample(sde, score, x, times=grid), sample(sde, score, x, times=grid, method="dopri5"))


@pytest.mark.parametrize("call", [encode, log_prob, lambda *a, **k: interpolate(*a, a[2], [0.5], **k)])
@pytest.mark.parametrize("name", ["n_step", "field", "forwards", "trajectories"])
def test_an_unknown_keyword_is_named_beside_the_known(call, name):
    with pytest.raises(TypeError, match=rf"takes no keyword '{name}'; .* method, .* n_steps, times, data_std"):
        call(VPSDE(), normal_score, X, **{name: 3})


@pytest.mark.parametrize("solver", [{}, {"n_steps": 8}], ids=["dopri5", "adams"])
@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_log_prob_of_an_image_is_that_of_its_vector(divergence, solver):
    sde = VPSDE()
    data = GaussianMixture(torch.ones(1, dtype=F64), torch.zeros(1, 4, dtype=F64), torch.full((1,), 0.5, dtype=F64))
    score = sde.exact_score(data)
    x = data.sample(6, generator=generator())

    def image_score(x, t):
        return score(x.flatten(1), t).reshape(x.shape)

    options = {"divergence": divergence, "data_std": 0.7, **solver}
    flat = log_prob(sde, score, x, generator=generator(), **options)
    square = log_prob(sde, image_score, x.reshape(6, 1, 2, 2), generator=generator(), **options)
    assert (flat - square).abs().max() < 1e-9


def test_hutchinson_is_unbiased_and_its_probes_stay_fixed_through_the_solve():
    sde = VPSDE()
    x = mixture().sample(8, generator=generator())
    score = sde.exact_score(mixture())
    arguments = {"method": "rk4", "n_steps": 60, "t_min": 1e-2}
    exact = log_prob(sde, score, x, **arguments)
    many = 2000
    found = log_prob(
        sde, score, x.repeat_interleave(many, 0), divergence="hutchinson", generator=generator(), **arguments
    ).reshape(8, many)
    error = found.std(1) / math.sqrt(many)
    assert ((found.mean(1) - exact).abs() < 4 * error).all()
    # One Rademacher probe in the plane sees the trace plus or minus twice the off-diagonal entry: two values a point.
    assert (found.std(1) > 1e-3).all()
    for values in found:
        assert len(values.mul(1e8).round().unique()) == 2


@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_log_prob_calls_the_score_once_per_evaluation_and_keeps_no_graph(divergence):
    kept = []

    def score(x, t):
        kept.append(weakref.ref(x))
        return -x * scale

    scale = torch.ones(2, dtype=F64, requires_grad=True)
    x = torch.randn(5, 2, generator=generator(), dtype=F64)
    found = log_prob(VPSDE(), score, x, divergence=divergence, method="heun2", n_steps=3, generator=generator())
    assert len(kept) == 6
    assert not found.requires_grad
    assert [x for x in kept if x() is not None] == []


def test_more_probes_shrink_the_spread_of_hutchinson():
    sde = VPSDE()
    x = mixture().sample(1, generator=generator()).repeat(600, 1)
    score = sde.exact_score(mixture())
    arguments = {"method": "heun2", "n_steps": 30, "t_min": 1e-2, "divergence": "hutchinson"}
    one, four = (log_prob(sde, score, x, n_projections=k, generator=generator(k), **arguments).var() for k in (1, 4))
    assert 2.5 < one / four < 6.5


@EACH_SDE
def test_the_score_may_be_linear_or_constant(sde):
    x = torch.randn(5, 3, generator=generator(), dtype=F64)
    still = log_prob(sde, lambda x, t: torch.zeros_like(x), x, rtol=1e-8, atol=1e-8, t_min=1e-3)
    # Without a score the flow is the drift alone: it scales by alpha(1)/alpha(t_min).
    factor = sde.alpha(torch.tensor(1.0, dtype=F64)) / sde.alpha(torch.tensor(1e-3, dtype=F64))
    assert (still - sde.prior_log_prob(factor * x) - 3 * factor.log()).abs().max() < 1e-6


def test_bits_do_not_depend_on_the_units_of_the_pixels():
    nats = torch.tensor([-3.0, 5.0], dtype=F64)
    n_dims, scale = 12, 127.5
    in_levels = bits_per_dim(nats - n_dims * math.log(scale), n_dims, 1.0)
    in_units = bits_per_dim(nats, n_dims, 1 / scale)
    assert (in_levels - in_units).abs().max() < 1e-12


def test_bits_of_a_uniform_density_are_those_of_its_levels():
    levels, n_dims = 17, 64
    width = 2 / levels
    nats = torch.tensor(-n_dims * math.log(levels * width), dtype=F64)
    assert abs(bits_per_dim(nats, n_dims, width).item() - math.log2(levels)) < 1e-12


def test_dequantized_values_fill_their_bins_evenly():
    x = torch.full((20000,), 3.0, dtype=F64)
    spread = (dequantize(x, 0.5, generator=generator()) - x) / 0.5
    assert spread.min() >= -0.5
    assert spread.max() < 0.5
    assert spread.mean().abs() < 4 * math.sqrt(1 / 12 / len(x))
    assert (spread.var() - 1 / 12).abs() < 4 * math.sqrt(1 / 180 / len(x))


def test_the_bits_of_dequantized_data_bound_their_entropy_from_above():
    """Two grey levels with chances 1/4 and 3/4: the best density gives the entropy, any other gives more."""
    p = torch.tensor([0.25, 0.75], dtype=F64)
    levels = torch.multinomial(p, 4000, replacement=True, generator=generator())
    x = dequantize(levels.to(F64)[:, None], 1.0, generator=generator(1))
    entropy = -(p * p.log2()).sum()
    best = bits_per_dim(p[x[:, 0].round().long().clamp(0, 1)].log(), 1, 1.0)
    assert (best.mean() - entropy).abs() < 4 * best.std() / math.sqrt(len(x))
    blunt = bits_per_dim(torch.distributions.Normal(0.75, 0.5).log_prob(x[:, 0]), 1, 1.0)
    assert blunt.mean() - 4 * blunt.std() / math.sqrt(len(x)) > entropy


def test_interpolation_ends_at_its_ends_and_keeps_to_the_data_between():
    sde = VPSDE()
    data = GaussianMixture(torch.ones(1, dtype=F64), torch.zeros(1, 200, dtype=F64), torch.ones(1, dtype=F64))
    a, b = data.sample(6, generator=generator()).chunk(2)
    walk = interpolate(sde, sde.exact_score(data), a, b, [0.0, 0.5, 1.0], rtol=1e-7, atol=1e-7)
    assert walk.shape == (3, 3, 200)
    assert (walk[0] - a).abs().max() < 1e-3
    assert (walk[2] - b).abs().max() < 1e-3
    # A straight line would pass at 0.71 of the typical norm.
    assert ((walk[1].norm(dim=1) / math.sqrt(200) - 1).abs() < 0.15).all()


def test_equal_ends_interpolate_to_themselves():
    x = torch.randn(2, 3, generator=generator(), dtype=F64)
    walk = interpolate(VPSDE(), normal_score, x, x, [0.3], rtol=1e-7, atol=1e-7)
    assert (walk[0] - x).abs().max() < 1e-4


@pytest.mark.parametrize("method", ["adams", "euler", "midpoint", "heun2", "heun3", "rk4"])
def test_with_fixed_steps_no_sample_depends_on_its_batch_mates(method):
    sde = VPSDE()
    score = sde.exact_score(mixture())
    noise = sde.sample_prior((6, 2), generator=generator(), dtype=F64)
    together = sample(sde, score, noise, method=method, n_steps=10)
    alone = sample(sde, score, noise[:1], method=method, n_steps=10)
    assert (together[:1] - alone).abs().max() < 1e-8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_type_is_kept_and_the_global_seed_left_alone(dtype):
    sde = VPSDE()
    x = torch.randn(4, 2, generator=generator(), dtype=dtype)
    state = torch.get_rng_state()
    for y in (
        sample(sde, normal_score, x),
        sample(sde, normal_score, x, n_steps=4),
        log_prob(sde, normal_score, x, n_steps=4),
        encode(sde, normal_score, x),
        log_prob(sde, normal_score, x, divergence="hutchinson", generator=generator()),
        dequantize(x, 0.1, generator=generator()),
    ):
        assert y.dtype == dtype
        assert not y.requires_grad
    assert torch.equal(torch.get_rng_state(), state)


def test_adaptive_solvers_ask_for_no_time_outside_the_interval():
    """Left alone, they overstep the last time, where the noise level is NaN, and probe far beyond the first."""
    for sde in (VESDE(1e-4, 50.0), VPSDE()):
        asked = []

        def score(x, t, asked=asked, sde=sde):
            asked.append(float(t))
            return sde.exact_score(mixture())(x, t)

        x = mixture().sample(4, generator=generator())
        code = encode(sde, score, x, t_min=1e-3)
        sample(sde, score, code, t_min=1e-3)
        assert min(asked) >= 1e-3 - 1e-9
        assert max(asked) <= 1 + 1e-9


def test_a_flow_too_stiff_for_its_solver_says_what_to_do():
    def steep(x, t):
        return -1e12 * x

    x = torch.randn(4, 2, generator=generator())
    with pytest.raises(RuntimeError, match=r"dopri5 shrank to nothing.*t_min.*heun2"):
        sample(VPSDE(), steep, x)


def test_a_score_that_is_not_a_number_near_the_end_is_an_error_of_the_same_kind():
    """Noise over sigma, with sigma written so that single precision makes it 0 at small times."""

    def divided(x, t):
        t = torch.as_tensor(t).to(x)
        sigma = torch.sqrt(1 - torch.exp(-(0.1 * t + 9.95 * t**2)))
        return -(sigma * x) / sigma

    x = torch.randn(4, 2, generator=generator())
    with pytest.raises(RuntimeError, match=r"not a number there.*t_min.*float64"):
        sample(VPSDE(), divided, x, t_min=1e-7)
    sample(VPSDE(), divided, x, t_min=1e-3)
    sample(VPSDE(), divided, x.double(), t_min=1e-7)


X = torch.zeros(3, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample(VPSDE(), normal_score, X, method="runge"), "method must be one of .*got 'runge'"),
        (lambda: sample(VPSDE(), normal_score, X, t_min=0.0), "t_min must lie in"),
        (lambda: encode(VPSDE(), normal_score, X, t_min=1.0), "t_min must lie in"),
        (lambda: sample(VPSDE(), normal_score, X, method="rk4"), "'rk4' takes fixed steps"),
        (lambda: sample(VPSDE(), normal_score, X, method="rk4", n_steps=0), "n_steps must be a positive integer"),
        (lambda: sample(VPSDE(), normal_score, X, method="adams"), "'adams' takes fixed steps"),
        (lambda: sample(VPSDE(), normal_score, X, n_steps=0), "n_steps must be a positive integer"),
        (lambda: sample(VPSDE(), normal_score, X, n_steps=2, data_std=0.0), "data_std must be positive"),
        (lambda: encode(VPSDE(), normal_score, X, data_std=float("inf")), "data_std must be positive and finite"),
        (lambda: sample(VPSDE(), lambda x, t: x[:, :1], X, n_steps=2), r"score must return shape \(3, 2\)"),
        (lambda: sample(VPSDE(), normal_score, X, n_steps=3, times=torch.tensor([1.0, 0.5])), "n_steps or times"),
        (lambda: sample(VPSDE(), normal_score, X, times=torch.tensor([0.5, 1.0])), "times must decrease"),
        (lambda: sample(VPSDE(), normal_score, X, times=torch.tensor([1.5, 0.5])), r"t must lie in \[0, 1\]"),
        (lambda: sample(VPSDE(), normal_score, X, rtol=0.0), "rtol must be positive"),
        (lambda: sample(VPSDE(), normal_score, X, atol=-1.0), "atol must be positive"),
        (lambda: sample(VPSDE(), normal_score, X * math.nan), "x must be finite"),
        (lambda: sample(VPSDE(), lambda x, t: x[:, :1], X), r"score must return shape \(3, 2\)"),
        (lambda: velocity(VPSDE(), normal_score)(3.5, X), r"t must lie in \[0, 1\]"),
        (lambda: log_prob(VPSDE(), normal_score, X, divergence="sliced"), "divergence must be one of"),
        (lambda: log_prob(VPSDE(), normal_score, X, n_projections=0), "n_projections must be a positive integer"),
        (lambda: log_prob(VPSDE(), normal_score, X, prior=lambda x: x), r"prior must return shape \(3,\)"),
        (lambda: log_prob(VPSDE(), normal_score, X, method="rk4"), "'rk4' takes fixed steps"),
        (lambda: log_prob(VPSDE(), normal_score, X * math.inf), "x must be finite"),
        (lambda: encode(VPSDE(), normal_score, X, n_steps=3, times=torch.tensor([1.0, 0.5])), "n_steps or times"),
        (lambda: bits_per_dim(X, 0, 1.0), "n_dims must be a positive integer"),
        (lambda: bits_per_dim(X, 2, 0.0), "bin_width must be positive"),
        (lambda: dequantize(X, -1.0), "bin_width must be positive"),
        (lambda: interpolate(VPSDE(), normal_score, X, X[:2], [0.5]), "x_a and x_b must have one shape"),
        (lambda: interpolate(VPSDE(), normal_score, X, X, [1.5]), "weights must lie in"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Flow matching

DERIVATIVES = (torch.autograd.functional.jacobian, torch.autograd.functional.hessian)


def with_time_last(sde):
    """The exact velocity, called as a network is."""
    field = velocity(sde, sde.exact_score(mixture()))
    return lambda x, t: field(t, x)


@EACH_SDE
@pytest.mark.parametrize("t", [0.01, 0.3, 0.9, 1.0])
def test_the_score_of_a_velocity_is_the_score_that_made_it(sde, t):
    x = law_at(sde, t).sample(50, generator=generator())
    back = score_from_velocity(sde, with_time_last(sde))
    torch.testing.assert_close(back(x, t), sde.exact_score(mixture())(x, t), rtol=1e-9, atol=1e-9)
    each = torch.full((50,), t, dtype=F64)
    torch.testing.assert_close(back(x, each), back(x, t))
    assert sde_of(back) is sde


@EACH_SDE
def test_the_speed_to_be_learned_is_that_of_the_line_from_point_to_noise(sde):
    """The loss against its definition, with the slopes of alpha and sigma by autograd."""
    x, model = mixture().sample(200, generator=generator(1)), lambda x, t: torch.sin(x) + t[:, None]
    t = torch.linspace(0.05, 1, 200, dtype=F64)
    found = flow_matching_loss(model, x, sde=sde, sample_times=lambda n, generator: t, generator=generator(2))
    moved, noise = sde.perturb(x, t, generator=generator(2))
    times = t.clone().requires_grad_()
    slope = [torch.autograd.grad((f(times) + 0 * times).sum(), times)[0][:, None] for f in (sde.alpha, sde.sigma)]
    speed = slope[0] * x + slope[1] * noise
    torch.testing.assert_close(found, (model(moved, t) - speed).square().sum(1).mean())


def test_lines_are_straight_unless_another_sde_is_asked_for():
    x, model = mixture().sample(100, generator=generator(1)), lambda x, t: 0 * x
    zero = flow_matching_loss(model, x, sample_times=lambda n, generator: torch.full((n,), 0.5), generator=generator(2))
    _, noise = StraightPath().perturb(x, 0.5, generator=generator(2))
    torch.testing.assert_close(zero, (noise - (1 - 1e-3) * x).square().sum(1).mean())


@EACH_SDE
def test_no_model_has_a_smaller_loss_than_the_velocity_of_the_flow(sde):
    x, exact = mixture().sample(4000, generator=generator(1)), with_time_last(sde)

    def loss(shift):
        # Weighed alike at all times, whatever the units of the velocity are there.
        def model(x, t):
            return exact(x, t) + shift * sde.diffusion(t).unsqueeze(1)

        return flow_matching_loss(model, x, sde=sde, generator=generator(2))

    at_zero = torch.zeros((), dtype=F64)
    slope, bend = (derivative(loss, at_zero) for derivative in DERIVATIVES)
    assert abs(slope / bend) < 0.05


def test_a_network_trained_by_flow_matching_serves_as_a_score():
    path, law = StraightPath(), mixture(torch.float32)
    distances = []
    for seed in range(3):
        network = TimeMLP(2, width=64, depth=2, generator=generator(seed))
        data = law.sample(4000, generator=generator(seed))
        fit(network, flow_matching_loss, data, n_steps=300, lr=3e-3, generator=generator(seed), progress=False)
        score = score_from_velocity(path, network)
        x = sample(path, score, path.sample_prior((2000, 2), generator=generator(seed)), n_steps=16)
        fresh = law.sample(2000, generator=generator(10 + seed))
        distances.append(float(energy_distance(x, fresh)))
        assert abs(log_prob(path, score, fresh, n_steps=20).mean() - law.log_prob(fresh).mean()) < 0.1
    gaussian = path.exact_score(GaussianMixture([1.0], law.mean[None], law.covariance[None]))
    rival = sample(path, gaussian, path.sample_prior((2000, 2), generator=generator(0)), n_steps=16)
    assert 2 * max(distances) < energy_distance(rival, fresh)


def test_conditions_reach_a_velocity_through_its_score():
    network = TimeMLP(2, width=8, n_classes=3, generator=generator())
    torch.nn.init.normal_(network.trunk.last.weight, generator=generator())
    score = score_from_velocity(StraightPath(), network)
    x = torch.randn(5, 2, generator=generator())
    ones, twos = (given(score, label=torch.full((5,), k))(x, 0.5) for k in (1, 2))
    assert not torch.equal(ones, twos)
    torch.testing.assert_close(ones, score(x, 0.5, label=torch.full((5,), 1)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: score_from_velocity(VPSDE(), VPSDE().exact_score(mixture())), "velocity must be a model of dx/dt"),
        (
            lambda: flow_matching_loss(ScoreModel(TimeMLP(2), VPSDE()), torch.zeros(3, 2)),
            r"model must be a model of dx/dt, got a score of VPSDE",
        ),
        (lambda: flow_matching_loss(lambda x, t: x[0], torch.zeros(3, 2)), "model must return shape"),
        (lambda: score_from_velocity(VPSDE(), lambda x, t: x[0])(torch.zeros(3, 2), 0.5), "velocity must return shape"),
        (lambda: score_from_velocity(StraightPath(), lambda x, t: x)(torch.zeros(3, 2), 0.0), "must be positive"),
    ],
)
def test_what_is_no_velocity_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_relative_tolerance_knows_no_units_and_the_absolute_one_those_of_the_points():
    sde = VPSDE()
    score = sde.exact_score(GaussianMixture([1.0], torch.zeros(1, 2, dtype=torch.float64), 0.25))
    x = sde.sample_prior((5, 2), generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def scaled(rtol, atol, units):
        return sample(sde, score, units * x, method="dopri5", rtol=rtol, atol=atol) / units

    relative, absolute = scaled(1e-2, 1e-12, 1.0), scaled(1e-9, 1e-2, 1.0)
    torch.testing.assert_close(scaled(1e-2, 1e-9, 1000.0), relative, rtol=1e-7, atol=0)
    torch.testing.assert_close(scaled(1e-9, 10.0, 1000.0), absolute, rtol=1e-5, atol=0)
    assert (scaled(1e-9, 1e-2, 1000.0) - absolute).abs().max() > 1e-5


def test_a_number_is_a_time_wherever_tensors_are_made_by_default():
    field, x = velocity(VPSDE(), lambda x, t: -2 * x), torch.ones(3, 2)
    expected = field(torch.tensor(0.5), x)
    with torch.device("meta"):
        found = field(0.5, x)
    torch.testing.assert_close(found, expected)
