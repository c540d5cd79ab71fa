"""What a sampler adds to the network: seconds per evaluation in a sampler over those of a bare forward pass.

Each project is used as its own documentation says: scorebook with its ``ScoreModel``, azula with its
``KarrasDenoiser``, smalldiffusion with its ``Scaled`` network that predicts the noise, a scheduler of diffusers in its
documented loop around a network that predicts the noise, torchdiffeq with the velocity of the probability flow, written
by hand for a network that predicts the noise. All call the same network as often, on the same machine, in turns.
"""

import diffusers
import torch
import torchdiffeq
from accelerate import Accelerator
from azula.denoise import KarrasDenoiser
from azula.noise import VPSchedule
from azula.sample import DDPMSampler, EulerSampler, ItoSampler, PCSampler

from benchmarks.peers import smalldiffusion
from benchmarks.timing import interleaved, per_evaluation
from scorebook import lab, probability_flow, sde

__all__ = ["measure"]

# Evaluations in one call of a sampler. Where the network is slow, few suffice: the overhead is that of each step.
EVALUATIONS = {("MLP", 1): 50, ("MLP", 64): 50, ("MLP", 512): 50, ("UNet", 1): 50, ("UNet", 64): 10, ("UNet", 512): 4}
SHAPES = {"MLP": (64,), "UNet": (1, 8, 8)}


class NoiseNetwork(torch.nn.Module, smalldiffusion.ModelMixin):
    """The network as smalldiffusion wants it: the noise predicted from ``x`` and ``sigma``."""

    def __init__(self, network, shape):
        super().__init__()
        self.network, self.input_dims = network, shape

    def forward(self, x, sigma, cond=None):
        """The network at ``x`` and the logarithm of the noise scale."""
        return self.network(x, sigma.log())


def scorebook_samplers(network, x, n):
    """Euler-Maruyama, predictor-corrector and the flow in equal steps, for the VP SDE."""
    vp = sde.VPSDE()
    model = sde.ScoreModel(network, vp).eval()
    return {
        "Euler–Maruyama": {
            "euler_maruyama": lambda: sde.euler_maruyama(vp, model, x, n_steps=n, denoise=False),
        },
        "predictor–corrector": {
            "predictor_corrector": lambda: sde.predictor_corrector(vp, model, x, n_steps=n // 2, denoise=False),
        },
        "probability flow": {
            "sample": lambda: probability_flow.sample(vp, model, x, n_steps=n),
            "sample, euler": lambda: probability_flow.sample(vp, model, x, method="euler", n_steps=n),
        },
    }


def azula_samplers(network, x, n):
    """Azula's samplers of the same three kinds, without their progress bars."""
    denoiser = KarrasDenoiser(network, VPSchedule()).eval()
    options = {"silent": True}
    ito, ddpm = ItoSampler(denoiser, steps=n, **options), DDPMSampler(denoiser, steps=n, **options)
    corrected, euler = PCSampler(denoiser, steps=n // 2, **options), EulerSampler(denoiser, steps=n, **options)
    return {
        "Euler–Maruyama": {"ItoSampler": lambda: ito(x), "DDPMSampler": lambda: ddpm(x)},
        "predictor–corrector": {"PCSampler": lambda: corrected(x)},
        "probability flow": {"EulerSampler": lambda: euler(x)},
    }


def smalldiffusion_samplers(network, x, n):
    """Smalldiffusion's one sampler as DDPM and as DDIM; it has no corrector."""
    model = smalldiffusion.Scaled(NoiseNetwork)(network, tuple(x.shape[1:]))
    sigmas = smalldiffusion.ScheduleLogLinear(N=200, sigma_min=0.005, sigma_max=10).sample_sigmas(n)
    accelerator = Accelerator()

    def run(**options):
        *_, x0 = smalldiffusion.samples(model, sigmas, xt=x * sigmas[0], accelerator=accelerator, **options)
        return x0

    return {
        "Euler–Maruyama": {"samples, DDPM": lambda: run(gam=1, mu=0.5)},
        "probability flow": {"samples, DDIM": lambda: run(gam=1, mu=0)},
    }


def diffusers_samplers(network, x, n):
    """The schedulers of diffusers of the same three kinds, each in the loop of its documentation."""

    def run(scheduler):
        scheduler.set_timesteps(n)
        sample = x * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            noise = network(scheduler.scale_model_input(sample, t), t)
            sample = scheduler.step(noise, t, sample).prev_sample
        return sample

    def run_corrected(scheduler):
        scheduler.set_timesteps(n // 2)
        scheduler.set_sigmas(n // 2)
        sample = x * scheduler.init_noise_sigma
        for i, t in enumerate(scheduler.timesteps):
            sigma = scheduler.sigmas[i] * torch.ones(len(x))
            for _ in range(scheduler.config.correct_steps):
                sample = scheduler.step_correct(network(sample, sigma), sample).prev_sample
            sample = scheduler.step_pred(network(sample, sigma), t, sample).prev_sample
        return sample

    ddpm, ancestral = diffusers.DDPMScheduler(), diffusers.EulerAncestralDiscreteScheduler()
    ddim, euler = diffusers.DDIMScheduler(), diffusers.EulerDiscreteScheduler()
    ve = diffusers.ScoreSdeVeScheduler()
    return {
        "Euler–Maruyama": {
            "DDPMScheduler": lambda: run(ddpm),
            "EulerAncestralDiscreteScheduler": lambda: run(ancestral),
        },
        "predictor–corrector": {"ScoreSdeVeScheduler": lambda: run_corrected(ve)},
        "probability flow": {"DDIMScheduler": lambda: run(ddim), "EulerDiscreteScheduler": lambda: run(euler)},
    }


def torchdiffeq_samplers(network, x, n):
    """Torchdiffeq's Euler method, which needs a velocity: that of the VP SDE, for a network that predicts the noise."""
    beta_min, beta_max = 0.1, 20.0

    def velocity(t, x):
        beta = beta_min + t * (beta_max - beta_min)
        sigma = torch.sqrt(-torch.expm1(-t * (beta_min + 0.5 * t * (beta_max - beta_min))))
        return -0.5 * beta * (x - network(x, t) / sigma)

    times = torch.linspace(1, 1e-3, n + 1)
    return {"probability flow": {"odeint, euler": lambda: torchdiffeq.odeint(velocity, x, times, method="euler")[-1]}}


PROJECTS = {
    "scorebook": scorebook_samplers,
    "azula": azula_samplers,
    "smalldiffusion": smalldiffusion_samplers,
    "diffusers": diffusers_samplers,
    "torchdiffeq": torchdiffeq_samplers,
}


@torch.no_grad()
def measure(repetitions: int) -> list[dict]:
    """Seconds per evaluation in each sampler, and of the bare network in the same round."""
    rows = []
    for (kind, batch), n in EVALUATIONS.items():
        generator = torch.Generator().manual_seed(0)
        make = lab.TimeMLP if kind == "MLP" else lab.UNet
        network = make(SHAPES[kind] if kind == "MLP" else 1, generator=generator).eval()
        x = torch.randn(batch, *SHAPES[kind], generator=generator)
        of = {project: samplers(network, x, n) for project, samplers in PROJECTS.items()}
        for sampler in of["scorebook"]:
            rows += _rows(sampler, kind, batch, n, network, x, of, repetitions)
    return rows


def _rows(sampler, kind, batch, n, network, x, of, repetitions):
    t = torch.tensor(0.5)

    def bare():
        for _ in range(n):
            network(x, t)

    def several(run):
        return lambda: run()

    cases = {(None, "bare"): bare}
    cases |= {(project, name): run for project in of for name, run in of[project].get(sampler, {}).items()}
    for run in cases.values():
        _check_evaluations(run, network, n)
    seconds = interleaved(cases, repetitions, at_least=0.1)
    bare_seconds = seconds.pop((None, "bare"))
    return [
        {"sampler": sampler, "network": kind, "batch": batch, "project": project, "name": name} | row
        for (project, name), taken in seconds.items()
        for row in per_evaluation(taken, bare_seconds, n)
    ]


def _check_evaluations(run, network, n) -> None:
    calls = []
    with network.register_forward_hook(lambda *_: calls.append(1)):
        run()
    if len(calls) != n:
        raise RuntimeError(f"a sampler must call the network {n} times, it did {len(calls)} times")
