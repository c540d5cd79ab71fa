"""An SDE that says alpha and sigma alone has drift, diffusion and times of them, and is refused where it has none."""

import doctest
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from scorebook import lab, probability_flow, sde
from scorebook.sde import SDE, VESDE, VPSDE, ScoreModel, StraightPath, SubVPSDE

F64 = torch.float64
TIMES = torch.linspace(0.001, 1, 40, dtype=F64)


class OwnVE(SDE):
    def alpha(self, t):
        return 1

    def sigma(self, t):
        return 0.01 * 5000**t


class OwnVP(SDE):
    def alpha(self, t):
        return torch.exp(-0.5 * self.integral(t))

    def sigma(self, t):
        return torch.sqrt(-torch.expm1(-self.integral(t)))

    def integral(self, t):
        return 0.1 * t + 9.95 * t**2


class OwnSubVP(OwnVP):
    def sigma(self, t):
        return -torch.expm1(-self.integral(t))


class Cosine(SDE):
    """The cosine schedule, which ends a little before a quarter of a turn."""

    angle = 0.497 * math.pi

    def alpha(self, t):
        return torch.cos(self.angle * t)

    def sigma(self, t):
        return torch.sin(self.angle * t)


class Straight(SDE):
    """The straight paths of flow matching, which end a little before the noise."""

    def alpha(self, t):
        return 1 - 0.999 * t

    def sigma(self, t):
        return t


CLOSED = {
    "VE": (OwnVE(), VESDE()),
    "VP": (OwnVP(), VPSDE()),
    "sub-VP": (OwnSubVP(), SubVPSDE()),
    "straight": (Straight(), StraightPath()),
}
EACH = pytest.mark.parametrize("name", CLOSED)
EVERY_OWN = pytest.mark.parametrize(
    "own", [OwnVE(), OwnVP(), OwnSubVP(), Cosine(), Straight()], ids=lambda own: type(own).__name__
)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@EACH
def test_drift_and_diffusion_are_those_of_the_closed_form(name):
    own, closed = CLOSED[name]
    x = normal(len(TIMES), 3)
    torch.testing.assert_close(own.drift(x, TIMES), closed.drift(x, TIMES), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(own.diffusion(TIMES), closed.diffusion(TIMES), rtol=1e-9, atol=1e-12)


@EACH
def test_they_are_at_time_zero_too_where_the_standard_deviation_is_a_root(name):
    own, closed = CLOSED[name]
    x = normal(2, 3)
    # Taken 1e-8 beside 0, where beta has grown by two millionths.
    torch.testing.assert_close(own.drift(x, 0.0), closed.drift(x, 0.0), rtol=3e-6, atol=0)
    # That of sub-VP is 0, and at the time beside it 2e-5; on the straight path, the root of twice 1e-8.
    atol = 1.5e-4 if name == "straight" else 3e-5
    torch.testing.assert_close(own.diffusion(0.0), closed.diffusion(0.0), rtol=3e-6, atol=atol)


@EACH
def test_times_and_prior_are_those_of_the_closed_form(name):
    own, closed = CLOSED[name]
    ratios = closed.sigma(TIMES) / closed.alpha(TIMES)
    torch.testing.assert_close(own.time_of(ratios), TIMES, rtol=1e-11, atol=1e-11)
    for spacing in ("uniform", "karras", "share", "angle", "log"):
        grid = closed.time_grid(12, spacing=spacing, dtype=F64)
        torch.testing.assert_close(own.time_grid(12, spacing=spacing, dtype=F64), grid, rtol=1e-9, atol=1e-11)
    assert own.prior_std == pytest.approx(closed.prior_std, rel=1e-4)  # for sub-VP 1 is a rounding of sigma(1)
    sde.same_sde("score", closed.exact_score(lab.GaussianMixture([1.0], [[0.0]], 1.0)), own)


def test_a_model_refuses_a_time_at_which_no_signal_is_left():
    class Whole(SDE):
        def alpha(self, t):
            return 1 - t

        def sigma(self, t):
            return t

    model, x = ScoreModel(lab.TimeMLP(2, width=4), Whole()), torch.zeros(3, 2)
    assert model(x, 0.999).isfinite().all()
    for times in (1.0, torch.tensor([0.5, 1.0, 0.5])):
        with pytest.raises(ValueError, match=r"alpha\(t\) must be positive, got 0 from .*Whole"):
            model(x, times)


def test_the_cosine_schedule_has_its_closed_forms():
    own, w, x = Cosine(), Cosine.angle, normal(len(TIMES), 2)
    tangent = torch.tan(w * TIMES)
    torch.testing.assert_close(own.drift(x, TIMES), -w * tangent.unsqueeze(1) * x)
    torch.testing.assert_close(own.diffusion(TIMES), (2 * w * tangent).sqrt())
    torch.testing.assert_close(own.time_of(tangent), TIMES)
    assert own.prior_std == math.sin(w)


@EVERY_OWN
def test_the_moments_of_its_kernel_solve_their_equations(own):
    r"""In full, by the differences of alpha and sigma: m' = f m, (sigma^2)' = 2 f sigma^2 + g^2."""
    t, h = TIMES[2:-2], 1e-5
    rate = own.drift(torch.ones(len(t), 1, dtype=F64), t).squeeze(1)

    def slope(of):
        return (of(t + h) - of(t - h)) / (2 * h)

    torch.testing.assert_close(slope(own.alpha), rate * own.alpha(t), rtol=1e-6, atol=1e-7)
    variance = own.sigma(t) ** 2
    right = 2 * rate * variance + own.diffusion(t) ** 2
    torch.testing.assert_close(slope(lambda t: own.sigma(t) ** 2), right, rtol=1e-6, atol=1e-7)


FORMS = [0.3, 1, np.float64(0.3), torch.tensor(0.3), torch.tensor([0.2, 0.9]), torch.tensor([1, 0])]


@EVERY_OWN
@pytest.mark.parametrize("t", FORMS)
def test_times_come_in_every_form_and_go_in_their_shape(own, t):
    dtype = t.dtype if isinstance(t, torch.Tensor) else F64
    dtype = dtype if dtype.is_floating_point else torch.float32
    for values in (own.alpha(t), own.sigma(t), own.diffusion(t)):
        assert (values.shape, values.dtype) == (torch.as_tensor(t).shape, dtype)
        assert bool(torch.isfinite(values).all())
    back = own.time_of(own.sigma(t) / own.alpha(t))
    assert (back.shape, back.dtype) == (torch.as_tensor(t).shape, dtype)
    torch.testing.assert_close(back.double(), torch.as_tensor(t).double(), rtol=1e-4, atol=1e-4)


@EVERY_OWN
@pytest.mark.parametrize("bad", [1.5, torch.tensor([0.5, -0.1]), math.nan])
def test_a_time_outside_is_refused_by_every_method(own, bad):
    for method in (own.alpha, own.sigma, own.diffusion, lambda t: own.drift(normal(2, 1), t)):
        with pytest.raises(ValueError, match=r"t must lie in \[0, 1\]"):
            method(bad)


@EVERY_OWN
def test_a_noise_level_that_it_never_has_is_refused(own):
    high = 1.01 * float(own.sigma(1.0) / own.alpha(1.0))
    for ratio in (high, torch.tensor([0.5, high], dtype=F64)):
        with pytest.raises(ValueError, match=r"noise_to_signal must lie in \["):
            own.time_of(ratio)
    if isinstance(own, OwnVE):
        with pytest.raises(ValueError, match=r"noise_to_signal must lie in \[0.01, 50\]"):
            own.time_of(0.009)


@EACH
def test_gradients_with_respect_to_noise_level_and_time_are_those_of_the_closed_form(name):
    own, closed = CLOSED[name]

    def gradients(process):
        ratio = torch.tensor([0.1, 0.7, 3.0], dtype=F64, requires_grad=True)
        t = torch.tensor([0.2, 0.5, 0.9], dtype=F64, requires_grad=True)
        x = normal(3, 2).requires_grad_()
        total = process.time_of(ratio).sum() + process.diffusion(t).sum() + process.drift(x, t).square().sum()
        return torch.autograd.grad(total, (ratio, t, x), materialize_grads=True, allow_unused=True)

    for ours, theirs in zip(gradients(own), gradients(closed), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_it_works_in_every_mode_of_autograd_and_leaves_no_graph_where_none_is_asked_for(mode):
    with mode():
        g, f = Cosine().diffusion(TIMES), Cosine().drift(normal(len(TIMES), 1), TIMES)
    torch.testing.assert_close(g.clone(), Cosine().diffusion(TIMES))
    assert not g.requires_grad
    assert not f.requires_grad


MIXTURE = lab.GaussianMixture([0.2, 0.8], torch.tensor([[-1.0, 0.5], [1.0, 0.0]], dtype=F64), [0.05, 0.1])


@pytest.mark.parametrize("own", [Cosine(), Straight(), OwnVE()], ids=lambda own: type(own).__name__)
def test_samples_and_likelihoods_of_its_exact_score_are_those_of_the_law(own):
    generator = torch.Generator().manual_seed(0)
    x = own.sample_prior((4000, 2), generator=generator, dtype=F64)
    drawn = sde.euler_maruyama(
        own, own.exact_score(MIXTURE), x, times=own.time_grid(150, spacing="karras", dtype=F64), generator=generator
    )
    share = lab.mode_weights(drawn, MIXTURE.means)[1]
    assert abs(share - 0.8) < 4 * math.sqrt(0.16 / len(x)) + 0.01
    points = MIXTURE.sample(50, generator=generator)
    end = MIXTURE.diffuse(own.alpha(1.0), own.sigma(1.0))
    exact = {"prior": end, "rtol": 1e-7, "atol": 1e-7, "t_min": 1e-4}
    found = probability_flow.log_prob(own, own.exact_score(MIXTURE), points, **exact)
    start = MIXTURE.diffuse(own.alpha(1e-4), own.sigma(1e-4))
    torch.testing.assert_close(found, start.log_prob(points), rtol=0, atol=1e-4)


def test_a_model_trains_in_its_time_and_its_weights_belong_to_it():
    model = ScoreModel(lab.TimeMLP(2, width=16, depth=1, generator=torch.Generator().manual_seed(0)), Cosine())
    data = lab.moons(256, generator=torch.Generator().manual_seed(1))

    def loss(model, x, *, generator):
        return sde.score_matching_loss(
            model, model.sde, x, weighting="likelihood", sample_times=sde.time_sampler(model.sde), generator=generator
        )

    history = lab.fit(model, loss, data, n_steps=40, generator=torch.Generator().manual_seed(2), progress=False)
    assert history.smoothed(10)[-1] < history.smoothed(10)[9]
    other = ScoreModel(lab.TimeMLP(2, width=16, depth=1), VPSDE())
    with pytest.raises(ValueError, match="belongs to"):
        other.load_state_dict(model.state_dict())
    with pytest.raises(ValueError, match="score belongs to"):
        sde.euler_maruyama(VPSDE(), model, data, n_steps=2)


class Learned(nn.Module, SDE):
    """A schedule with a parameter, which the loss may move."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(1.5, dtype=F64))

    def alpha(self, t):
        return torch.cos(self.rate * t)

    def sigma(self, t):
        return torch.sin(self.rate * t)


def test_gradients_reach_the_parameters_of_a_schedule_that_is_learned():
    learned = Learned()
    (gradient,) = torch.autograd.grad(learned.diffusion(0.5) ** 2, learned.rate)
    rate = torch.tensor(1.5, dtype=F64, requires_grad=True)
    (expected,) = torch.autograd.grad(2 * rate * torch.tan(0.5 * rate), rate)
    torch.testing.assert_close(gradient, expected)
    before = learned.prior_std
    with torch.no_grad():
        learned.rate.fill_(1.2)
    assert learned.prior_std == math.sin(1.2) != before


def test_a_prior_of_its_own_and_closed_forms_of_its_own_are_taken():
    class Own(Cosine):
        prior_std = 0.5

        def diffusion(self, t):
            return torch.full_like(self.sigma(t), 7.0)

    class Assigned(Cosine):
        def __init__(self):
            self.prior_std = 0.25

    assert (Own().prior_std, Assigned().prior_std) == (0.5, 0.25)
    assert float(Own().diffusion(0.5)) == 7.0
    assert pickle.loads(pickle.dumps(Cosine())).prior_std == Cosine().prior_std


# Schedules that are none


def schedule(alpha, sigma):
    return type("Wrong", (SDE,), {"alpha": lambda self, t: alpha(t), "sigma": lambda self, t: sigma(t)})()


def through_numpy(t):
    return torch.as_tensor(np.cos(t.detach().numpy()))


REFUSED = {
    "falling noise": (lambda t: torch.ones_like(t), lambda t: 1.1 - t, r"must grow with t.*falls at t=0.9"),
    "noise that pauses and falls": (torch.cos, lambda t: torch.sin(3 * t), r"must grow with t.*falls at t=0.9"),
    "no signal left": (
        lambda t: 0.8 - t,
        lambda t: 0.1 + t,
        r"alpha\(t\) must be positive on \[0, 1\], got -0.1 .* t=0.9",
    ),
    "a signal of the wrong sign": (lambda t: -torch.cos(t), torch.sin, r"alpha\(t\) must be positive"),
    "not a number": (lambda t: torch.log(t - 2), torch.sin, r"alpha\(t\) must be positive on \[0, 1\], got nan"),
    "noise that is not a number": (torch.cos, lambda t: torch.sqrt(t - 2), r"must grow with t"),
    "NumPy": (through_numpy, torch.sin, r"alpha\(t\) must be differentiable in t all the way.*detach"),
    "detached": (torch.cos, lambda t: torch.sin(t.detach()), r"sigma\(t\) must be differentiable in t"),
    "another shape": (lambda t: torch.ones(3), torch.sin, r"Wrong.alpha must return shape \(1,\)"),
    "integers": (lambda t: torch.ones_like(t).long(), torch.sin, r"Wrong.alpha must return real floating-point"),
    "nothing": (lambda t: None, torch.sin, r"Wrong.alpha must return a tensor of shape \(1,\), got NoneType"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_schedule_is_refused_by_name(name):
    alpha, sigma, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        schedule(alpha, sigma).diffusion(torch.tensor([0.9], dtype=F64))


@pytest.mark.parametrize("name", ["falling noise", "noise that pauses and falls"])
def test_a_noise_level_that_comes_twice_has_no_time(name):
    alpha, sigma, _ = REFUSED[name]
    with pytest.raises(ValueError, match=r"sigma\(t\)/alpha\(t\) must grow with t|noise_to_signal must lie"):
        schedule(alpha, sigma).time_of(torch.tensor([0.3, 0.5, 0.6], dtype=F64))


def test_a_sampler_names_the_time_at_which_a_schedule_falls():
    wrong = schedule(torch.cos, lambda t: torch.sin(3 * t))
    with pytest.raises(ValueError, match="falls at t="):
        sde.euler_maruyama(wrong, lambda x, t: -x, normal(3, 2), n_steps=4)


def test_an_sde_without_a_signal_or_a_noise_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        type("Half", (SDE,), {"alpha": lambda self, t: t})()


def test_the_example_of_the_documentation_runs():
    names = {"SDE": SDE, "torch": torch}
    example = doctest.DocTestParser().get_doctest(SDE.__doc__, names, "SDE", None, 0)
    assert len(example.examples) == 2
    assert doctest.DocTestRunner().run(example).failed == 0
