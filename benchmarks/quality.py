"""Sample quality against evaluations of the score, with the exact score of a mixture: no training, no noise of it.

Each project runs its own solvers on its own noise schedule, with the options that its documentation recommends, from
its own prior. Where a solver asks for the network, it gets the exact answer at its own signal and noise scale, and the
call is counted. All start from the same standard normal numbers, made from a scrambled Sobol sequence: evener than
random ones, so that what is measured is the solver's error and not the luck of a sample.

Two distances are measured: the sliced Wasserstein distance of the samples to the law itself, by the exact quantiles of
the mixture along 64 directions; and, as a solver has one right answer, the root mean square distance to where the exact
flow leads from the same start. Two laws are of mean zero and unit variance, as data are prepared in all of the
projects; others are the first of them made narrower or wider, as data are that nobody has prepared. Where a project has
a place to say on which scale the data are, it is told: the standard deviation, or the ends of the noise in units of it.
"""

import math

import diffusers
import torch
from azula import denoise, noise
from azula import sample as azula
from torchdiffeq import odeint

from benchmarks.distances import exact_flow, root_mean_square, sliced_wasserstein_to
from benchmarks.peers import smalldiffusion
from scorebook import lab, probability_flow, sde

__all__ = ["BUDGETS", "LAWS", "measure"]

BUDGETS = (5, 10, 20, 50, 100)
N_SAMPLES = 4096
N_FOLLOWED = 512  # samples that are compared with the exact flow
_PRECISE = torch.float64


def _standardised(weights, means, covariances) -> lab.GaussianMixture:
    """Mean zero and mean variance one, as data are prepared in all of the projects."""
    law = lab.GaussianMixture(weights, means, covariances)
    scale = law.covariance.diagonal().mean().sqrt()
    return lab.GaussianMixture(law.weights, (law.means - law.mean) / scale, law.covariances / scale**2)


def _plane() -> lab.GaussianMixture:
    means = [[-2.0, -1.0], [1.5, -1.5], [0.5, 1.8], [2.5, 1.0], [-1.5, 2.2]]
    covariances = [
        [[0.5, 0.3], [0.3, 0.3]],
        [[0.05, 0.0], [0.0, 0.4]],
        [[0.2, -0.1], [-0.1, 0.1]],
        [[0.02, 0.0], [0.0, 0.02]],
        [[0.1, 0.0], [0.0, 0.01]],
    ]
    weights, means, covariances = (
        torch.tensor(v, dtype=_PRECISE) for v in ([0.35, 0.25, 0.2, 0.15, 0.05], means, covariances)
    )
    return _standardised(weights, means, covariances)


def _sixteen() -> lab.GaussianMixture:
    means = torch.randn(6, 16, generator=torch.Generator().manual_seed(1), dtype=_PRECISE)
    weights = torch.tensor([0.3, 0.25, 0.2, 0.12, 0.08, 0.05], dtype=_PRECISE)
    variances = torch.tensor([0.4, 0.2, 0.1, 0.05, 0.02, 0.1], dtype=_PRECISE)
    return _standardised(weights, means, variances)


# Each with the standard deviation to which it is scaled.
LAWS = {
    "5 clusters, 2 dimensions": (_plane, 1.0),
    "6 clusters, 16 dimensions": (_sixteen, 1.0),
    "5 clusters, standard deviation 0.1": (_plane, 0.1),
    "5 clusters, standard deviation 10": (_plane, 10.0),
    "5 clusters, standard deviation 50": (_plane, 50.0),
}


def _scaled(law, std) -> lab.GaussianMixture:
    return lab.GaussianMixture(law.weights, std * law.means, std**2 * law.covariances)


class Counted:
    """The exact posterior mean of the clean point, given ``alpha x_0 + sigma z``, that counts how often it is asked."""

    def __init__(self, law, std=1.0):
        self.law, self.std, self.calls = law, std, 0

    def clean(self, x, alpha, sigma):
        """``E[x_0 | x]``, by Tweedie's formula in the precision of ``x``."""
        self.calls += 1
        alpha, sigma = float(alpha), float(sigma)
        return (x + sigma**2 * self.law.diffuse(alpha, sigma).score(x)) / alpha

    def noise(self, x, alpha, sigma):
        """``E[z | x]``."""
        self.calls += 1
        return -float(sigma) * self.law.diffuse(float(alpha), float(sigma)).score(x)


# A solver takes the counted law, standard normal numbers and a budget. It returns where it started, in the units of the
# data, at which noise-to-signal ratio, where it ended, and at which ratio.


def _scorebook(process_for, **options):
    """The flow of the SDE that is made for data of a standard deviation."""

    def solve(exact, z, n):
        process = process_for(exact.std)

        def score(x, t):
            exact.calls += 1
            return exact.law.diffuse(process.alpha(t), process.sigma(t)).score(x)

        start = process.prior_std * z
        end = probability_flow.sample(process, score, start, n_steps=n, data_std=exact.std, **options)
        ends = torch.tensor([1.0, 1e-3], dtype=_PRECISE)
        (first, last), (high, low) = process.alpha(ends).tolist(), (process.sigma(ends) / process.alpha(ends)).tolist()
        return start / first, high, end / last, low

    return solve


class _AzulaDenoiser(denoise.Denoiser):
    def __init__(self, exact, schedule):
        super().__init__()
        self.exact, self.schedule = exact, schedule

    def forward(self, x_t, t, **kwargs):
        return denoise.DiracPosterior(mean=self.exact.clean(x_t, *self.schedule(t)))


def _azula(sampler, schedule, **options):
    def solve(exact, z, n):
        denoiser = _AzulaDenoiser(exact, schedule)
        run = sampler(denoiser, steps=n, silent=True, dtype=_PRECISE, **options)
        ends = torch.tensor([1.0, 0.0], dtype=_PRECISE)
        (first, last), (high, low) = (v.tolist() for v in schedule(ends))
        # The prior of `Sampler.init`, told the data's mean, 0, and variance.
        start = math.sqrt((first * exact.std) ** 2 + high**2) * z
        return start / first, high / first, run(start) / last, low / last

    return solve


class _SmallModel(torch.nn.Module, smalldiffusion.ModelMixin):
    def __init__(self, exact, dim):
        super().__init__()
        self.exact, self.input_dims = exact, (dim,)

    def forward(self, x, sigma, cond=None):
        return self.exact.noise(x, 1.0, sigma)


class _OnProcessor:
    device = torch.device("cpu")


def _smalldiffusion(sigma_min, sigma_max, **options):
    """Noise from ``sigma_min`` to ``sigma_max`` in units of the data."""

    def solve(exact, z, n):
        ends = {"sigma_min": sigma_min * exact.std, "sigma_max": sigma_max * exact.std}
        sigmas = smalldiffusion.ScheduleLogLinear(N=200, **ends).sample_sigmas(n)
        start = sigmas[0] * z
        model = _SmallModel(exact, z.shape[1])
        *_, end = smalldiffusion.samples(model, sigmas, xt=start, accelerator=_OnProcessor(), **options)
        return start, float(sigmas[0]), end, float(sigmas[-1])

    return solve


def _diffusers(scheduler, **options):
    """A scheduler in the loop of its documentation; the noise is predicted at the exact noise scale of the step."""

    def solve(exact, z, n):
        steps = scheduler(**options)
        steps.set_timesteps(n)
        ratios = steps.sigmas.double().tolist()
        start = x = z * steps.init_noise_sigma
        for ratio, t in zip(ratios[:-1], steps.timesteps, strict=True):
            steps.scale_model_input(x, t)  # asked for by the documentation; the exact answer takes x as it is
            alpha = 1 / math.sqrt(1 + ratio**2)
            x = steps.step(exact.noise(x, alpha, alpha * ratio), t, x).prev_sample
        first, last = (math.sqrt(1 + ratio**2) for ratio in (ratios[0], ratios[-1]))
        return first * start, ratios[0], last * x, ratios[-1]

    return solve


def _karras(scheduler, **options):
    """The schedulers of Karras et al.: they take the network's output before it is scaled to a clean point.

    Their noise runs from 0.002 to 80, by default, in units of the data.
    """

    def solve(exact, z, n):
        std = exact.std
        steps = scheduler(sigma_data=std, sigma_min=0.002 * std, sigma_max=80 * std, **options)
        steps.set_timesteps(n)
        ratios = steps.sigmas.double().tolist()
        start = x = ratios[0] * z
        for ratio, t in zip(ratios[:-1], steps.timesteps, strict=True):
            total = math.hypot(std, ratio)
            output = (exact.clean(x, 1.0, ratio) - (std / total) ** 2 * x) * total / (std * ratio)
            x = steps.step(output, t, x).prev_sample
        return start, ratios[0], x, ratios[-1]

    return solve


def _torchdiffeq(method, per_step):
    """The flow of the VP SDE, written by hand, in equal steps."""
    process = sde.VPSDE()

    def solve(exact, z, n):
        def velocity(t, x):
            alpha, sigma = process.alpha(t), process.sigma(t)
            return -0.5 * process.beta(t) * (x - exact.noise(x, alpha, sigma) / sigma)

        times = torch.linspace(1, 1e-3, max(1, n // per_step) + 1, dtype=_PRECISE)
        end = odeint(velocity, z, times, method=method)[-1]
        (first, last), (high, low) = process.alpha(times[[0, -1]]).tolist(), process.sigma(times[[0, -1]]).tolist()
        return z / first, high / first, end / last, low / last

    return solve


# Of each project the solvers and schedules that its documentation puts forward. Of azula's five multistep samplers, two
# orders and five schedules, and of the grids of diffusers, those that came out ahead on either law at some budget.
SOLVERS = {
    ("scorebook", "adams, VP (default)"): _scorebook(lambda _: sde.VPSDE()),
    ("scorebook", "adams, VE in the data's units"): _scorebook(lambda std: sde.VESDE(0.002 * std, 80 * std)),
    ("scorebook", "Euler in t, VP"): _scorebook(lambda _: sde.VPSDE(), method="euler"),
    ("azula", "DDIM, VP"): _azula(azula.DDIMSampler, noise.VPSchedule()),
    ("azula", "vAB order 2, rectified"): _azula(azula.vABSampler, noise.RectifiedSchedule(), order=2),
    ("azula", "vAB order 3, rectified"): _azula(azula.vABSampler, noise.RectifiedSchedule(), order=3),
    ("azula", "vAB order 3, decay"): _azula(azula.vABSampler, noise.DecaySchedule(), order=3),
    ("azula", "zEAB order 2, rectified"): _azula(azula.zEABSampler, noise.RectifiedSchedule(), order=2),
    ("azula", "REAB order 2, cosine"): _azula(azula.REABSampler, noise.CosineSchedule(), order=2),
    ("smalldiffusion", "accelerated, gam=2"): _smalldiffusion(0.005, 10, gam=2),
    ("smalldiffusion", "gam=1.6"): _smalldiffusion(0.02, 10, gam=1.6),
    ("diffusers", "DPM-Solver++ order 2, Karras"): _diffusers(
        diffusers.DPMSolverMultistepScheduler, use_karras_sigmas=True
    ),
    ("diffusers", "UniPC order 3, exponential"): _diffusers(
        diffusers.UniPCMultistepScheduler, solver_order=3, use_exponential_sigmas=True
    ),
    ("diffusers", "DEIS order 3, Karras"): _diffusers(
        diffusers.DEISMultistepScheduler, solver_order=3, use_karras_sigmas=True
    ),
    ("diffusers", "EDM DPM-Solver++ order 3"): _karras(diffusers.EDMDPMSolverMultistepScheduler, solver_order=3),
    ("torchdiffeq", "RK4 in t, VP"): _torchdiffeq("rk4", 4),
}


def measure(repetitions: int = 5) -> list[dict]:
    """One row for each law, solver, budget and repetition, and one for the floor of each law and repetition.

    The floor is the exact flow from the same start, which no solver passes but by luck; random samples of the law of
    the same number, whose distance stands beside, scatter more than the even start does.

    ``"evaluations"`` is the budget and ``"evaluations_made"`` what was counted, which is never more.
    ``"sliced_wasserstein"`` and ``"rms_to_exact_flow"`` are in units of the data's standard deviation; each solver's
    flow is followed to the noise level at which that solver ends.
    """
    rows = []
    for repetition in range(repetitions):
        for name, (make, std) in LAWS.items():
            law = make()  # of unit scale, in which distances are measured
            generator = torch.Generator().manual_seed(repetition)
            even = torch.quasirandom.SobolEngine(law.dim, scramble=True, seed=repetition).draw(
                N_SAMPLES, dtype=_PRECISE
            )
            z = torch.special.ndtri(even.clamp(1e-9, 1 - 1e-9))
            distance = sliced_wasserstein_to(law, N_SAMPLES, generator)
            case = {"law": name, "repetition": repetition}
            rows.append(
                case
                | {
                    "project": "none",
                    "solver": "exact flow",
                    "sliced_wasserstein": distance(exact_flow(law, 1e3 * z, 1e3, 0.0)),
                    "sliced_wasserstein_of_exact_samples": distance(law.sample(N_SAMPLES, generator=generator)),
                }
            )
            flows = {}
            for (project, solver), solve in SOLVERS.items():
                for budget in BUDGETS:
                    exact = Counted(_scaled(law, std), std)
                    start, high, end, low = solve(exact, z, budget)
                    start, high, end, low = start / std, high / std, end / std, low / std
                    way = (high, low, start[0, 0].item())
                    if way not in flows:
                        flows[way] = exact_flow(law, start[:N_FOLLOWED], high, low)
                    apart = root_mean_square(end[:N_FOLLOWED], flows[way])
                    made = {"evaluations": budget, "evaluations_made": exact.calls}
                    found = {"sliced_wasserstein": distance(end), "rms_to_exact_flow": apart}
                    rows.append(case | {"project": project, "solver": solver} | made | found)
    return rows
