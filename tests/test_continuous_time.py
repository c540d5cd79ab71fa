"""SDEs, reverse steps, flows, likelihoods and guidance: right ones pass, the usual mistakes are named."""

import math
from itertools import pairwise

import graded
import pytest
import torch
from torchdiffeq import odeint

from scorebook import controllable_generation, coursework, lab, probability_flow, sde

DOUBLE = torch.float64


class Process:
    """A student's VP SDE; each of its functions may be replaced by a wrong one."""

    def __init__(self, **wrong):
        for name, function in wrong.items():
            setattr(self, name, function.__get__(self))

    def beta(self, t):
        return 0.1 + 19.9 * t

    def integral(self, t):
        return 0.1 * t + 0.5 * 19.9 * t**2

    def alpha(self, t):
        return torch.exp(-0.5 * self.integral(t))

    def sigma(self, t):
        return torch.sqrt(1 - torch.exp(-self.integral(t)))

    def drift(self, x, t):
        return -0.5 * self.beta(t)[:, None] * x

    def diffusion(self, t):
        return torch.sqrt(self.beta(t))

    def perturb(self, x0, t, *, generator=None):
        z = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
        return self.alpha(t)[:, None] * x0 + self.sigma(t)[:, None] * z, z


class Single:
    """A student's SDE that computes in single precision, whatever it is given."""

    def __init__(self, process):
        self.process = process

    def __getattr__(self, name):
        method = getattr(self.process, name)
        return lambda *arguments, **options: method(*[a.float() for a in arguments], **options)


class Exploding(Process):
    """A student's VE SDE."""

    def alpha(self, t):
        return torch.ones_like(t)

    def sigma(self, t):
        return 0.01 * 5000**t

    def drift(self, x, t):
        return torch.zeros_like(x)

    def diffusion(self, t):
        return self.sigma(t) * math.sqrt(2 * math.log(5000))


def perturb(alpha=lambda a: a, sigma=lambda s: s, draw=torch.randn, returned=None):
    def method(self, x0, t, *, generator=None):
        z = draw(x0.shape, generator=generator, dtype=x0.dtype)
        a, s = self.alpha(t)[:, None], self.sigma(t)[:, None]
        return alpha(a) * x0 + sigma(s) * z, z if returned is None else returned(z, s)

    return method


def shared(shape, generator, dtype):
    return torch.randn(shape[1:], generator=generator, dtype=dtype).expand(shape)


def one_noise_for_a_state(shape, generator, dtype):
    return torch.randn((shape[0], 1), generator=generator, dtype=dtype).expand(shape)


RIGHT_SDES = {
    "VP": (sde.VPSDE(), sde.VPSDE()),
    "VE": (sde.VESDE(), sde.VESDE()),
    "sub-VP": (sde.SubVPSDE(), sde.SubVPSDE()),
    "by hand": (Process(), sde.VPSDE()),
    "by hand, VE": (Exploding(), sde.VESDE()),
    "single precision": (Single(Process()), sde.VPSDE()),
    "single precision, VE": (Single(Exploding()), sde.VESDE()),
}


@pytest.mark.parametrize("name", RIGHT_SDES)
def test_a_right_sde_passes_with_a_reference_and_without(name):
    process, reference = RIGHT_SDES[name]
    graded.passes(lambda seed: coursework.check_sde(process, seed=seed))
    graded.passes(lambda seed: coursework.check_sde(process, reference=reference, seed=seed))


WRONG_SDES = {
    "g²": (Process(diffusion=lambda self, t: self.beta(t)), "squared_diffusion"),
    "drift's sign": (Process(drift=lambda self, x, t: 0.5 * self.beta(t)[:, None] * x), "drift_sign"),
    "drift without ½": (Process(drift=lambda self, x, t: -self.beta(t)[:, None] * x), "half"),
    "drift with ¼": (Process(drift=lambda self, x, t: -0.25 * self.beta(t)[:, None] * x), "half_drift"),
    "no drift": (Process(drift=lambda self, x, t: torch.zeros_like(x)), "no_drift"),
    "α without ½": (
        Process(
            alpha=lambda self, t: torch.exp(-self.integral(t)),
            sigma=lambda self, t: torch.sqrt(1 - torch.exp(-self.integral(t))),
        ),
        "alpha_squared",
    ),
    "variance for σ": (Process(sigma=lambda self, t: 1 - torch.exp(-self.integral(t))), "variance_for_std"),
    "g of VE": (Process(diffusion=lambda self, t: self.sigma(t)), "sigma_for_diffusion"),
    "g without √2": (Process(diffusion=lambda self, t: torch.sqrt(self.beta(t) / 2)), "root_two"),
    "√σ": (Process(sigma=lambda self, t: (1 - torch.exp(-self.integral(t))) ** 0.25), "root_of_std"),
    "√g": (Process(diffusion=lambda self, t: self.beta(t) ** 0.25), "root_of_diffusion"),
    "no noise": (Process(diffusion=lambda self, t: torch.zeros_like(t)), "no_diffusion"),
    "VE, g = σ": (Exploding(diffusion=lambda self, t: self.sigma(t)), "sigma_for_diffusion"),
    "VE, g²": (Exploding(diffusion=lambda self, t: self.sigma(t) ** 2 * 2 * math.log(5000)), "squared_diffusion"),
    "σ² z": (Process(perturb=perturb(sigma=lambda s: s**2)), "variance_for_std"),
    "x₀ for α x₀": (Process(perturb=perturb(alpha=torch.ones_like)), "no_alpha"),
    "z for σ z": (Process(perturb=perturb(sigma=torch.ones_like)), "no_sigma"),
    "rand": (Process(perturb=perturb(draw=torch.rand)), "uniform_noise"),
    "one noise for all": (Process(perturb=perturb(draw=shared)), "shared_noise"),
    "one noise for a point": (Process(perturb=perturb(draw=one_noise_for_a_state)), "shared_noise"),
    "σ z returned": (Process(perturb=perturb(returned=lambda z, s: s * z)), "scaled_noise"),
    "another z returned": (Process(perturb=perturb(returned=lambda z, s: z.flip(0))), "fresh_noise"),
    "points only": (Process(perturb=lambda self, x0, t, generator=None: x0), "shape"),
    "σ of one time": (Process(sigma=lambda self, t: torch.sqrt(1 - torch.exp(-self.integral(t)))[:1]), "shape"),
}


@pytest.mark.parametrize("name", WRONG_SDES)
def test_a_wrong_sde_is_named(name):
    process, mistake = WRONG_SDES[name]
    graded.is_named(lambda seed: coursework.check_sde(process, seed=seed), mistake)


@pytest.mark.parametrize("name", [name for name in WRONG_SDES if "VE" not in name])
def test_a_wrong_sde_is_named_beside_a_reference(name):
    process, mistake = WRONG_SDES[name]
    graded.is_named(lambda seed: coursework.check_sde(process, reference=sde.VPSDE(), seed=seed), mistake)


def test_a_forgotten_term_of_the_squared_diffusion_is_named():
    """What differentiating sigma alone gives: right for VE, and wrong by the pull of the drift for VP."""

    def slope_only(self, t):
        return torch.sqrt(self.beta(t) * torch.exp(-self.integral(t)))

    graded.is_named(lambda seed: coursework.check_sde(Process(diffusion=slope_only), seed=seed), "variance_slope")


@pytest.mark.parametrize(
    "sigma",
    [lambda self, t: torch.sqrt(1 - self.alpha(t)), lambda self, t: 1 - self.alpha(t)],
    ids=["√(1 − α)", "1 − α"],
)
def test_sigma_from_alpha_without_its_square_is_named_beside_a_reference(sigma):
    process = Process(sigma=sigma)
    graded.is_named(lambda seed: coursework.check_sde(process, reference=sde.VPSDE(), seed=seed), "sigma_from_alpha")


def test_an_sde_that_is_consistent_but_another_one_is_refused():
    assert coursework.check_sde(sde.VPSDE(0.2, 20.0))
    graded.is_named(lambda seed: coursework.check_sde(sde.VPSDE(0.2, 20.0), reference=sde.VPSDE(), seed=seed), None)
    vp_for_sub = coursework.check_sde(sde.VPSDE(), reference=sde.SubVPSDE())
    assert vp_for_sub.mistake == "other_sde"


def test_a_reference_that_is_no_sde_is_an_error():
    with pytest.raises(ValueError, match="reference"):
        coursework.check_sde(Process(), reference="VP")


def step(
    drift=lambda f, g, s: f - g**2 * s,
    size=lambda dt: dt,
    noise=lambda g, dt: g * dt.abs().sqrt(),
    *,
    draw=torch.randn,
    at=lambda t, dt: t,
    asked=lambda process, t: t,
):
    """Student's reverse step, with the place of each usual mistake as an argument."""

    def f(process, score, x, t, dt, *, generator):
        z = draw(x.shape, generator=generator, dtype=x.dtype)
        t = at(t, dt)
        g = process.diffusion(t)
        s = score(x, asked(process, t))
        return x + drift(process.drift(x, t), g, s) * size(dt) + noise(g, dt) * z

    return f


def book_step(process, score, x, t, dt, generator):
    times = torch.stack([t, t + dt])
    return sde.euler_maruyama(process, score, x, times=times, denoise=False, generator=generator)


def clipped_by_batch(process, score, x, t, dt, *, generator):
    return step()(process, lambda x, t: score(x, t) / score(x, t).norm() * 200, x, t, dt, generator=generator)


def single_step(process, score, x, t, dt, *, generator):
    return step()(process, lambda x, t: score(x, t).float(), x.float(), t.float(), dt.float(), generator=generator)


@pytest.mark.parametrize("right", [step(), book_step, single_step], ids=["by hand", "the book's", "single precision"])
def test_a_right_reverse_step_passes(right):
    graded.passes(lambda seed: coursework.check_reverse_step(right, seed=seed))


WRONG_STEPS = {
    "no √dt": (step(noise=lambda g, dt: g), "no_root_dt"),
    "dt": (step(noise=lambda g, dt: g * dt.abs()), "dt_for_root"),
    "g²√dt": (step(noise=lambda g, dt: g**2 * dt.abs().sqrt()), "squared_diffusion"),
    "√dt": (step(noise=lambda g, dt: dt.abs().sqrt()), "no_diffusion"),
    "z": (step(noise=lambda g, dt: 1.0), "no_scale"),
    "√2 g√dt": (step(noise=lambda g, dt: g * (2 * dt.abs()).sqrt()), "root_two"),
    "no noise": (step(noise=lambda g, dt: 0.0), "no_noise"),
    "flow": (step(lambda f, g, s: f - 0.5 * g**2 * s, noise=lambda g, dt: 0.0), "flow"),
    "½ g²": (step(lambda f, g, s: f - 0.5 * g**2 * s), "half_score"),
    "g s": (step(lambda f, g, s: f - g * s), "diffusion_for_squared"),
    "s": (step(lambda f, g, s: f - s), "no_squared_diffusion"),
    "+ g² s": (step(lambda f, g, s: f + g**2 * s), "score_sign"),
    "-f": (step(lambda f, g, s: -f - g**2 * s), "drift_sign"),
    "no f": (step(lambda f, g, s: -(g**2) * s), "no_drift"),
    "no score": (step(lambda f, g, s: f), "no_score"),
    "|dt|": (step(size=torch.abs), "time_direction"),
    "forward": (step(lambda f, g, s: f, torch.abs), "forward"),
    "no change": (lambda process, score, x, t, dt: x.clone(), "no_change"),
    "t + dt": (step(at=lambda t, dt: t + dt), "time_reached"),
    "rand": (step(draw=torch.rand), "uniform_noise"),
    "no dt": (step(size=torch.ones_like), "no_step"),
    "√dt of a negative": (step(noise=lambda g, dt: g * dt.sqrt()), "not_finite"),
    "one noise for all": (step(draw=shared), "shared_noise"),
    "one noise for a state": (step(draw=one_noise_for_a_state), "shared_noise"),
    "σ for t": (step(asked=lambda process, t: process.sigma(t)), "noise_scale"),
    "1 - t": (step(asked=lambda process, t: 1 - t), "wrong_time"),
    "norm of the batch": (clipped_by_batch, "coupled"),
}


@pytest.mark.parametrize("name", WRONG_STEPS)
def test_a_wrong_reverse_step_is_named(name):
    f, mistake = WRONG_STEPS[name]
    graded.is_named(lambda seed: coursework.check_reverse_step(f, seed=seed), mistake)


def flow(combine=lambda f, g, s: f - 0.5 * g**2 * s, asked=lambda process, t: t):
    def velocity(process, score):
        def field(t, x):
            return combine(process.drift(x, t), process.diffusion(t), score(x, asked(process, t)))

        return field

    return velocity


def single_flow(process, score):
    field = flow()(process, score)
    return lambda t, x: field(t.float(), x.float())


@pytest.mark.parametrize(
    "right", [flow(), probability_flow.velocity, single_flow], ids=["by hand", "the book's", "single precision"]
)
def test_a_right_velocity_passes(right):
    graded.passes(lambda seed: coursework.check_probability_flow(right, seed=seed))


def swapped(process, score):
    return lambda x, t: flow()(process, score)(t, x)


def of_the_batch(process, score):
    return lambda t, x: flow()(process, score)(t, x - x.mean(0))


WRONG_FLOWS = {
    "½": (flow(lambda f, g, s: f - g**2 * s), "half"),
    "½ g": (flow(lambda f, g, s: f - 0.5 * g * s), "diffusion_for_squared"),
    "½ s": (flow(lambda f, g, s: f - 0.5 * s), "no_squared_diffusion"),
    "+": (flow(lambda f, g, s: f + 0.5 * g**2 * s), "score_sign"),
    "backwards": (flow(lambda f, g, s: 0.5 * g**2 * s - f), "time_direction"),
    "no drift": (flow(lambda f, g, s: -0.5 * g**2 * s), "no_drift"),
    "drift's sign": (flow(lambda f, g, s: -f - 0.5 * g**2 * s), "drift_sign"),
    "½ drift": (flow(lambda f, g, s: 0.5 * f - 0.5 * g**2 * s), "half_drift"),
    "σ for t": (flow(asked=lambda process, t: process.sigma(t).clamp(max=1)), "noise_scale"),
    "no score": (flow(lambda f, g, s: f), "no_score"),
    "¼": (flow(lambda f, g, s: f - (0.5 * g) ** 2 * s), "quarter"),
    "(x, t)": (swapped, "argument_order"),
    "batch": (of_the_batch, "coupled"),
    "no callable": (lambda process, score: 0.0, "type"),
}


@pytest.mark.parametrize("name", WRONG_FLOWS)
def test_a_wrong_velocity_is_named(name):
    f, *mistakes = WRONG_FLOWS[name]
    graded.is_named(lambda seed: coursework.check_probability_flow(f, seed=seed), *mistakes)


def traced(field, x, probe=None):
    """Value and divergence of a field: exact, or along one probe."""
    x = x.clone().requires_grad_()
    out = field(x)
    if probe is not None:
        return out.detach(), (torch.autograd.grad((out * probe).sum(), x)[0] * probe).sum(1)
    parts = [torch.autograd.grad(out[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(x.shape[1])]
    return out.detach(), torch.stack(parts).sum(0)


def likelihood(velocity=None, *, trace=1.0, prior=None, of_trace=traced, ends=lambda start, end: end, n_steps=8):
    """Student's likelihood by Runge and Kutta's rule on a grid that is fine where the noise is small."""
    velocity = velocity or flow()

    def f(process, score, x, generator=None):
        field = velocity(process, score)
        times = process.time_grid(n_steps, spacing="karras", dtype=DOUBLE).flip(0)
        start, total = x, torch.zeros(len(x), dtype=DOUBLE)
        for t, t_next in pairwise(times):
            h, middle = t_next - t, (t + t_next) / 2
            k1, d1 = of_trace(lambda x, t=t: field(t, x), x)
            k2, d2 = of_trace(lambda x, t=middle: field(t, x), x + h / 2 * k1)
            k3, d3 = of_trace(lambda x, t=middle: field(t, x), x + h / 2 * k2)
            k4, d4 = of_trace(lambda x, t=t_next: field(t, x), x + h * k3)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            total = total + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
        end = ends(start, x)
        return (process.prior_log_prob(end) if prior is None else prior(end)) + trace * total

    return f


def all_entries(field, x):
    x = x.clone().requires_grad_()
    out = field(x)
    return out.detach(), torch.autograd.grad(out.sum(), x)[0].sum(1)


def unit_probe(process, score, x, generator):
    v = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    v = v / v.norm(dim=1, keepdim=True)
    return likelihood(of_trace=lambda field, x: traced(field, x, v))(process, score, x)


def estimated(process, score, x, generator):
    return probability_flow.log_prob(
        process, score, x, divergence="hutchinson", generator=generator, method="rk4", n_steps=30
    )


def bits(f=None, offset=None, scale=None):
    offset = offset or (lambda width: math.log2(width))
    scale = scale or (lambda d: -1 / (d * math.log(2)))

    def g(process, score, x, width):
        return scale(x.shape[1]) * (f or likelihood())(process, score, x) - offset(width)

    return g


RIGHT_LIKELIHOODS = {
    "by hand": (likelihood(), {}),
    "the book's": (lambda process, score, x: probability_flow.log_prob(process, score, x, rtol=1e-4, atol=1e-4), {}),
    "estimated": (estimated, {}),
    "bits": (bits(), {"bin_width": 0.1}),
}


@pytest.mark.parametrize("name", RIGHT_LIKELIHOODS)
def test_a_right_likelihood_passes(name):
    f, options = RIGHT_LIKELIHOODS[name]
    graded.passes(lambda seed: coursework.check_log_prob(f, seed=seed, **options))


WIDTH = {"bin_width": 0.1}
WRONG_LIKELIHOODS = {
    "no prior": (likelihood(prior=lambda x: 0.0), {}, "no_prior"),
    "no divergence": (likelihood(trace=0.0), {}, "no_divergence"),
    "divergence's sign": (likelihood(trace=-1.0), {}, "divergence_sign"),
    "½ divergence": (likelihood(trace=0.5), {}, "half_divergence"),
    "½": (likelihood(flow(lambda f, g, s: f - g**2 * s)), {}, "half"),
    "score's sign": (likelihood(flow(lambda f, g, s: f + 0.5 * g**2 * s)), {}, "score_sign"),
    "no constant": (likelihood(prior=lambda x: -0.5 * x.square().sum(1)), {}, "no_constant"),
    "constant once": (
        likelihood(prior=lambda x: -0.5 * x.square().sum(1) - 0.5 * math.log(2 * math.pi)),
        {},
        "no_constant",
    ),
    "prior at the start": (likelihood(ends=lambda start, end: start), {}, "prior_at_start"),
    "no drift": (likelihood(flow(lambda f, g, s: -0.5 * g**2 * s)), {}, "no_drift"),
    "g": (likelihood(flow(lambda f, g, s: f - 0.5 * g * s)), {}, "diffusion_for_squared"),
    "all entries": (likelihood(of_trace=all_entries), {}, "all_entries"),
    "unit projections": (unit_probe, {}, "unit_projections"),
    "negative": (lambda *problem: -likelihood()(*problem), {}, "negative"),
    "in bits": (lambda *problem: likelihood()(*problem) / math.log(2), {}, "bits"),
    "per dimension": (lambda *problem: likelihood()(*problem) / 3, {}, "per_dimension"),
    "mean": (lambda *problem: likelihood()(*problem).mean(), {}, "shape"),
    "no bin width": (bits(offset=lambda width: 0.0), WIDTH, "bin_width"),
    "bin width's sign": (bits(offset=lambda width: -math.log2(width)), WIDTH, "bin_width"),
    "bin width once": (bits(offset=lambda width: math.log2(width) / 3), WIDTH, "bin_width"),
    "8 bits": (bits(offset=lambda width: -8), WIDTH, "dequantization"),
    "7 bits": (bits(offset=lambda width: -7), WIDTH, "dequantization"),
    "not per dimension": (bits(scale=lambda d: -1 / math.log(2), offset=lambda w: 3 * math.log2(w)), WIDTH, "total"),
    "nats": (bits(scale=lambda d: -1 / d, offset=math.log), WIDTH, "nats"),
    "positive": (bits(scale=lambda d: 1 / (d * math.log(2)), offset=lambda w: -math.log2(w)), WIDTH, "negative"),
    "bits, divergence's sign": (bits(likelihood(trace=-1.0)), WIDTH, "divergence_sign"),
}


@pytest.mark.parametrize("name", WRONG_LIKELIHOODS)
def test_a_wrong_likelihood_is_named(name):
    f, options, mistake = WRONG_LIKELIHOODS[name]
    graded.is_named(lambda seed: coursework.check_log_prob(f, seed=seed, **options), mistake)


def fresh_probes(method, tolerance=1e-3, n_steps=None):
    """Student's likelihood by a black-box solver, with a new probe in each call."""

    def f(process, score, x, generator):
        field = probability_flow.velocity(process, score)

        def joint(t, state):
            probe = torch.randn(x.shape, generator=generator, dtype=x.dtype).sign()
            return traced(lambda x: field(t, x), state[0], probe)

        times = torch.linspace(1e-3, 1.0, n_steps or 2, dtype=DOUBLE)
        options = None if n_steps else {"step_t": times[-1:], "first_step": 1e-3}
        state = (x, torch.zeros(len(x), dtype=DOUBLE))
        end, total = odeint(joint, state, times, rtol=tolerance, atol=tolerance, method=method, options=options)
        return process.prior_log_prob(end[-1]) + total[-1]

    return f


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5])
def test_a_new_probe_at_every_call_of_an_adaptive_solver_is_named(tolerance):
    graded.is_named(lambda seed: coursework.check_log_prob(fresh_probes("dopri5", tolerance), seed=seed), "fresh_probe")


def test_new_probes_are_seen_where_two_of_them_agree_by_chance():
    assert coursework.check_log_prob(fresh_probes("dopri5"), seed=104).mistake == "fresh_probe"


def test_a_new_probe_at_every_step_of_a_fixed_solver_passes():
    graded.passes(lambda seed: coursework.check_log_prob(fresh_probes("heun2", n_steps=60), seed=seed))


def test_a_solver_that_dies_of_its_steps_is_told_to_keep_its_probe():
    def f(process, score, x, generator):
        raise AssertionError("underflow in dt 0.0")

    report = coursework.check_log_prob(f)
    assert report.mistake == "fresh_probe"
    assert "draw a probe once and keep it" in report.diagnosis


VP = sde.VPSDE()
STANDARD = lab.GaussianMixture([1.0], torch.zeros(1, 2, dtype=DOUBLE), 1.0)
MIXTURE = lab.GaussianMixture([0.3, 0.7], torch.tensor([[-1.0, 0.0], [1.0, 1.0]], dtype=DOUBLE), [0.1, 0.2])
OPERATOR = torch.tensor([[1.0, 0.5]], dtype=DOUBLE)
SEEN = controllable_generation.LinearObservation(OPERATOR, torch.tensor([1.2], dtype=DOUBLE), 0.3)


def gaussian(law, *, point=None, spread=None, std=0.3, scale=1.0, detach=False, plain=1.0, factor=lambda a: 1 / a):
    """Student's guidance by a Gaussian likelihood around an estimate of the clean point."""
    prior = VP.exact_score(law)

    def score(x, t):
        a, c = VP.alpha(t), VP.sigma(t)
        x = x.clone().requires_grad_()
        s = prior(x, t)
        clean = (x + c**2 * s) * factor(a) if point is None else point(x, a)
        if detach:
            clean = x + (clean - x).detach()
        v = c**2 / (c**2 + a**2) if spread is None else spread(a, c)
        gap = 1.2 - clean @ OPERATOR[0]
        log_likelihood = -0.5 * gap**2 / (v * 1.25 + std**2)
        return plain * s.detach() + scale * torch.autograd.grad(log_likelihood.sum(), x)[0]

    return score


def posterior(law):
    return VP.exact_score(law.condition(OPERATOR, SEEN.y[0], 0.3))


RIGHT_GUIDANCE = {
    "by hand": (gaussian(STANDARD), {}),
    "the book's": (controllable_generation.pseudoinverse_guidance(VP.exact_score(STANDARD), VP, SEEN), {}),
    "exact": (posterior(MIXTURE), {"prior": MIXTURE}),
    "in another SDE": (
        sde.VESDE().exact_score(MIXTURE.condition(OPERATOR, SEEN.y[0], 0.3)),
        {"prior": MIXTURE, "sde": sde.VESDE()},
    ),
}


@pytest.mark.parametrize("name", RIGHT_GUIDANCE)
def test_right_guidance_passes(name):
    score, options = RIGHT_GUIDANCE[name]
    graded.passes(lambda seed: coursework.check_guidance(score, SEEN, seed=seed, **options))


NO_SPREAD = {"spread": lambda a, c: 0.0}
WRONG_GUIDANCE = {
    "clean likelihood": ({"point": lambda x, a: x, **NO_SPREAD}, "clean_likelihood"),
    "clean likelihood of x/α": ({"point": lambda x, a: x / a, **NO_SPREAD}, "clean_likelihood"),
    "none": ({"scale": 0.0}, "no_guidance"),
    "no prior": ({"plain": 0.0}, "no_prior"),
    "sign": ({"scale": -1.0}, "guidance_sign"),
    "twice": ({"scale": 2.0}, "double_guidance"),
    "half": ({"scale": 0.5}, "half_guidance"),
    "no spread": (NO_SPREAD, "neglected_spread"),
    "divided by the standard deviation": ({"scale": 0.3, **NO_SPREAD}, "std_for_variance"),
    "not divided": ({"scale": 0.09, **NO_SPREAD}, "no_noise_variance"),
    "no 1/α": ({"factor": torch.ones_like}, "no_alpha"),
    "detached": ({"detach": True}, "no_jacobian"),
    "(σ/α)²": ({"spread": lambda a, c: (c / a) ** 2}, "sigma_spread"),
}


@pytest.mark.parametrize("name", WRONG_GUIDANCE)
def test_wrong_guidance_is_named(name):
    options, mistake = WRONG_GUIDANCE[name]
    score = gaussian(STANDARD, **options)
    graded.is_named(lambda seed: coursework.check_guidance(score, SEEN, seed=seed), mistake)


def test_pseudoinverse_guidance_is_named_as_an_approximation_for_a_mixture():
    score = gaussian(MIXTURE)
    graded.is_named(lambda seed: coursework.check_guidance(score, SEEN, prior=MIXTURE, seed=seed), "isotropic")


def test_guidance_that_couples_the_batch_is_named():
    def score(x, t):
        return gaussian(STANDARD)(x, t) * (1 + 0.1 * x.mean())

    graded.is_named(lambda seed: coursework.check_guidance(score, SEEN, seed=seed), "coupled")


@pytest.mark.parametrize(
    ("observation", "named"),
    [
        (OPERATOR, "observation must be a LinearObservation"),
        (controllable_generation.LinearObservation(OPERATOR, torch.ones(2, 1, dtype=DOUBLE), 0.3), "one y for all"),
        (
            controllable_generation.LinearObservation((lambda x: x, lambda y: y), torch.ones(1, 2), 0.3),
            "prior must be given",
        ),
    ],
)
def test_guidance_needs_an_observation_whose_posterior_is_known(observation, named):
    with pytest.raises(ValueError, match=named):
        coursework.check_guidance(gaussian(STANDARD), observation)


CATALOGUES = {
    "sde": (lambda seed: coursework.check_sde(Process(), seed=seed), WRONG_SDES),
    "sde, reference": (lambda seed: coursework.check_sde(Process(), reference=sde.VPSDE(), seed=seed), WRONG_SDES),
    "step": (lambda seed: coursework.check_reverse_step(step(), seed=seed), WRONG_STEPS),
    "flow": (lambda seed: coursework.check_probability_flow(flow(), seed=seed), WRONG_FLOWS),
    "likelihood": (lambda seed: coursework.check_log_prob(likelihood(), seed=seed), WRONG_LIKELIHOODS),
    "bits": (lambda seed: coursework.check_log_prob(bits(), seed=seed, **WIDTH), WRONG_LIKELIHOODS),
    "guidance": (lambda seed: coursework.check_guidance(gaussian(STANDARD), SEEN, seed=seed), WRONG_GUIDANCE),
}


@pytest.mark.parametrize("name", CATALOGUES)
def test_every_mistake_in_the_catalogue_has_an_author(monkeypatch, name):
    check, wrong = CATALOGUES[name]
    known = graded.catalogued(monkeypatch, check)
    elsewhere = {"other_sde", "variance_slope", "sigma_from_alpha", "isotropic"}  # each has a test of its own
    assert known <= {mistake for answer in wrong.values() for mistake in answer if isinstance(mistake, str)} | elsewhere
