"""SDEs and reverse steps: right ones pass, the usual mistakes are named."""

import math

import graded
import pytest
import torch

from scorebook import coursework, sde

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
    "α with ¼": (Process(alpha=lambda self, t: torch.exp(-0.25 * self.integral(t))), "alpha_squared"),
    "β t for its integral": (
        Process(
            alpha=lambda self, t: torch.exp(-0.5 * self.beta(t) * t),
            sigma=lambda self, t: torch.sqrt(1 - torch.exp(-self.beta(t) * t)),
        ),
        "integral",
    ),
    "variance for σ": (Process(sigma=lambda self, t: 1 - torch.exp(-self.integral(t))), "variance_for_std"),
    "g of VE": (Process(diffusion=lambda self, t: self.sigma(t)), "sigma_for_diffusion"),
    "g without √2": (Process(diffusion=lambda self, t: torch.sqrt(self.beta(t) / 2)), "root_two"),
    "√2 g": (Process(diffusion=lambda self, t: torch.sqrt(2 * self.beta(t))), "root_two"),
    "√σ": (Process(sigma=lambda self, t: (1 - torch.exp(-self.integral(t))) ** 0.25), "root_of_std"),
    "√g": (Process(diffusion=lambda self, t: self.beta(t) ** 0.25), "root_of_diffusion"),
    "no noise": (Process(diffusion=lambda self, t: torch.zeros_like(t)), "no_diffusion"),
    "VE, g = σ": (Exploding(diffusion=lambda self, t: self.sigma(t)), "sigma_for_diffusion"),
    "VE, g²": (Exploding(diffusion=lambda self, t: self.sigma(t) ** 2 * 2 * math.log(5000)), "squared_diffusion"),
    "σ² z": (Process(perturb=perturb(sigma=lambda s: s**2)), "variance_for_std"),
    "√σ z": (Process(perturb=perturb(sigma=torch.sqrt)), "root_of_std"),
    "α² x₀": (Process(perturb=perturb(alpha=torch.square)), "alpha_squared"),
    "√α x₀": (Process(perturb=perturb(alpha=torch.sqrt)), "alpha_squared"),
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


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_forgotten_term_of_the_squared_diffusion_is_named(share):
    """What differentiating sigma alone gives, or half of the pull: right for VE, and wrong for VP."""

    def slope(self, t):
        return torch.sqrt(self.beta(t) * (torch.exp(-self.integral(t)) + share * self.sigma(t) ** 2))

    graded.is_named(lambda seed: coursework.check_sde(Process(diffusion=slope), seed=seed), "variance_slope")


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


def own_drift(process, score, x, t, dt, *, generator):
    return step(lambda f, g, s: -(g**2) * (x / 2 + s))(process, score, x, t, dt, generator=generator)


def of_the_time_reached(drift):
    """Diffusion of the noise, and with ``drift`` all else but the score, at the time to which the step leads."""

    def f(process, score, x, t, dt, *, generator):
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        at, g = t + dt if drift else t, process.diffusion(t + dt)
        rate = process.drift(x, at) - process.diffusion(at) ** 2 * score(x, t)
        return x + rate * dt + g * dt.abs().sqrt() * z

    return f


def symmetric(shape, generator, dtype):
    return 2 * torch.rand(shape, generator=generator, dtype=dtype) - 1


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
    "½ f": (step(lambda f, g, s: f / 2 - g**2 * s), "half_drift"),
    "2 f": (step(lambda f, g, s: 2 * f - g**2 * s), "double_drift"),
    "f of VP": (own_drift, "own_drift"),
    "no score": (step(lambda f, g, s: f), "no_score"),
    "|dt|": (step(size=torch.abs), "time_direction"),
    "forward": (step(lambda f, g, s: f, torch.abs), "forward"),
    "no change": (lambda process, score, x, t, dt: x.clone(), "no_change"),
    "t + dt": (step(at=lambda t, dt: t + dt), "time_reached"),
    "f and g at t + dt": (of_the_time_reached(True), "time_reached"),
    "noise's g at t + dt": (of_the_time_reached(False), "time_reached"),
    "rand": (step(draw=torch.rand), "uniform_noise"),
    "rand in [-1, 1]": (step(draw=symmetric), "uniform_noise"),
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


def wrong_under(kind, right):
    """An answer that is right but for one kind of SDE."""

    def f(process, *args, **kwargs):
        moved = right(process, *args, **kwargs)
        return 1.2 * moved if type(process) is kind else moved

    return f


def book_sampler(process, score, shape, *, n_steps, t_min, generator):
    start = process.sample_prior(shape, generator=generator)
    return sde.euler_maruyama(process, score, start, n_steps=n_steps, t_min=t_min, generator=generator)


@pytest.mark.parametrize("kind", [sde.VPSDE, sde.SubVPSDE, sde.VESDE], ids=lambda kind: kind.__name__)
def test_an_answer_that_is_wrong_under_one_kind_of_sde_is_refused(kind):
    assert not coursework.check_reverse_step(wrong_under(kind, step()), seed=0).passed
    assert not coursework.check_sampler(wrong_under(kind, book_sampler), seed=0).passed
    assert coursework.check_sampler(book_sampler, seed=0).passed


def noisy_sampler(process, score, shape, *, n_steps, t_min, generator):
    """A right sampler, but for noise at its end, which the catalogue of mistakes then knows."""
    x = book_sampler(process, score, shape, n_steps=n_steps, t_min=t_min, generator=generator)
    return x + 0.2 * torch.randn(x.shape, generator=generator)


CATALOGUES = {
    "sde alone": (lambda seed: coursework.check_sde(Process(), seed=seed), WRONG_SDES),
    "reverse step": (lambda seed: coursework.check_reverse_step(step(), seed=seed), WRONG_STEPS),
    "sampler": (lambda seed: coursework.check_sampler(noisy_sampler, seed=seed), WRONG_STEPS),
}


@pytest.mark.parametrize("name", CATALOGUES)
def test_every_mistake_in_the_catalogue_has_an_author(monkeypatch, name):
    check, wrong = CATALOGUES[name]
    known = graded.catalogued(monkeypatch, check)
    elsewhere = {"other_sde", "variance_slope", "sigma_from_alpha"}  # each has a test of its own
    authors = {mistake for answer in wrong.values() for mistake in answer if isinstance(mistake, str)}
    assert known <= authors | elsewhere | graded.authored(name, "reverse step")
