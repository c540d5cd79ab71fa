r"""Four projects learn the digits, each with the target, weighting, times and sampler of its own documentation.

All of them train the same network, ``lab.TimeMLP``, on the same batches. Each is a :class:`Learner`: it trains until a
given number of seconds of its own training is spent, and what it has learned by then is asked for in one currency, the
denoiser in noise-to-signal ratio :math:`r = \sigma/\alpha`, in which all of these diffusions are one and the same.
"""

import abc
import functools
import math
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from scorebook import lab, probability_flow, sde

__all__ = ["LEARNERS", "Learner"]

SHAPE = (1, 8, 8)
BIN = 0.125  # width of a grey level, in the units of the pixels
BATCH = 128
EVALUATIONS = 50  # of the network, for each sample
# The step size of the tour, and the one that azula's README and smalldiffusion's training loop have for small networks;
# diffusers has only one for large UNets that train for hours (1e-4). Measured after 1500 steps, the tour's step size
# brought azula and smalldiffusion a smaller distance (0.061 for 0.069, 0.079 for 0.112) at more bits (2.81 for 2.77,
# 2.68 for 2.64): neither is better on both counts, so theirs are kept.
LR, LR_OF_PEERS = 2e-3, 1e-3


def network(seed: int) -> nn.Module:
    """The tour's network; the same first weights for everybody."""
    return lab.TimeMLP(SHAPE, width=256, depth=3, generator=torch.Generator().manual_seed(seed))


def batches(images, seed: int):
    """One epoch of dequantized batches after the other, without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        for rows in torch.randperm(len(images), generator=generator).split(BATCH):
            yield probability_flow.dequantize(images[rows], BIN, generator=generator)


class Learner(abc.ABC):
    """A project at work on the digits."""

    steps = 0
    seconds = 0.0

    @abc.abstractmethod
    def __init__(self, images, seed: int):
        """Set everything up; ``images`` are ``(N, 1, 8, 8)`` in [-1, 1]."""

    @abc.abstractmethod
    def train_until(self, seconds: float) -> None:
        """Train on, until ``seconds`` of training are spent in all."""

    @abc.abstractmethod
    def denoise(self, y, r):
        """``E[x_0 | y]`` for ``y = x_0 + r z``, ``r`` a scalar tensor; differentiable in ``y``."""

    @abc.abstractmethod
    def sample(self, n: int):
        """Digits by the project's own sampler."""


def _loss(model, x, *, process, noise_levels, generator):
    x = probability_flow.dequantize(x, BIN, generator=generator)
    return sde.score_matching_loss(
        model, process, x, weighting=model.weight, sample_times=noise_levels, generator=generator
    )


class Scorebook(Learner):
    """The tour's recipe: preconditioned score model, log-normal noise levels, the averaged weights of ``lab.fit``."""

    def __init__(self, images, seed):
        self.images = images
        self.process = sde.VESDE(sigma_min=0.02, sigma_max=40.0)
        self.model = sde.ScoreModel(network(seed), self.process, data_std=images.std().item())
        self.noise_levels = sde.log_normal_times(self.process, mean=-0.8, std=1.4)
        self.generator = torch.Generator().manual_seed(seed)
        self.folder = tempfile.TemporaryDirectory()

    def train_until(self, seconds, n_steps=10**7):
        if self.seconds >= seconds:
            return
        history = lab.fit(
            self.model,
            functools.partial(_loss, process=self.process, noise_levels=self.noise_levels),
            self.images,
            n_steps=n_steps,
            batch_size=BATCH,
            lr=LR,
            checkpoint=Path(self.folder.name) / "digits.pt",
            checkpoint_every=10**7,
            max_seconds=seconds - self.seconds,
            generator=self.generator,
        )
        self.steps, self.seconds = history.n_steps, history.seconds

    def denoise(self, y, r):
        return self.process.denoise(self.model, y, self.process.time_of(r))

    def sample(self, n):
        # A step of Heun takes two evaluations, and taking away the last noise one.
        times = self.process.time_grid((EVALUATIONS - 1) // 2, spacing="karras")
        noise = self.process.sample_prior((n, *SHAPE), generator=self.generator)
        x = probability_flow.sample(self.process, self.model, noise, method="heun2", times=times)
        with torch.no_grad():
            return self.process.denoise(self.model, x, times[-1])


class Peer(Learner):
    """A learner whose training is a generator of steps."""

    def train_until(self, seconds):
        start = time.perf_counter() - self.seconds
        while time.perf_counter() - start < seconds:
            next(self.training)
            self.steps += 1
        self.seconds = time.perf_counter() - start


class Averaged:
    """The moving average of weights with the warm-up of ``torch_ema`` and of TensorFlow, as in ``lab.fit``."""

    def __init__(self, model, decay=0.999):
        def average(means, weights, n_averaged):
            n = int(n_averaged) + 1
            torch._foreach_lerp_(means, weights, 1 - min(decay, (1 + n) / (10 + n)))

        self.averaged = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=average)

    def update(self, model):
        self.averaged.update_parameters(model)

    @property
    def model(self):
        return self.averaged.module.eval()


class Azula(Peer):
    """azula's README and tutorials: Karras denoiser, variance-preserving schedule, uniform times, DDIM sampler."""

    def __init__(self, images, seed):
        from azula.denoise import KarrasDenoiser
        from azula.noise import VPSchedule

        torch.manual_seed(seed)
        self.denoiser = KarrasDenoiser(backbone=network(seed), schedule=VPSchedule())
        self.average = Averaged(self.denoiser)
        self.training = self.steps_of(images, seed)

    def steps_of(self, images, seed):
        optimizer = torch.optim.Adam(self.denoiser.parameters(), lr=LR_OF_PEERS, fused=True)
        for x in batches(images, seed):
            loss = self.denoiser.loss(x, torch.rand(len(x)))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            self.average.update(self.denoiser)
            yield

    def denoise(self, y, r):
        schedule = self.average.model.schedule
        alpha = torch.sqrt((1 + schedule.sigma_min**2) / (1 + r**2))
        t = torch.sqrt(torch.log(alpha) / math.log(schedule.alpha_min))
        return self.average.model(alpha * y, t).mean

    def sample(self, n):
        from azula.sample import DDIMSampler

        sampler = DDIMSampler(self.average.model, steps=EVALUATIONS, silent=True)
        return sampler(sampler.init((n, *SHAPE)))


class SmallDiffusion(Peer):
    """smalldiffusion's image examples: noise prediction, scaled inputs, log-linear noise levels, averaged weights."""

    def __init__(self, images, seed):
        from benchmarks.peers import smalldiffusion

        class Network(nn.Module, smalldiffusion.ModelMixin):
            input_dims = SHAPE

            def __init__(self):
                super().__init__()
                self.network = network(seed)

            def forward(self, x, sigma, cond=None):
                return self.network(x, sigma.log().flatten())

        torch.manual_seed(seed)
        self.schedule = smalldiffusion.ScheduleLogLinear(sigma_min=0.01, sigma_max=20, N=800)
        self.model = smalldiffusion.Scaled(Network)()
        self.average = Averaged(self.model)
        self.training = self.steps_of(images, seed)

    def steps_of(self, images, seed):
        from benchmarks.peers import smalldiffusion

        # The step under way is completed when the loop is asked for the next: the average lags by one step.
        epochs = smalldiffusion.training_loop(
            batches(images, seed), self.model, self.schedule, epochs=1, lr=LR_OF_PEERS
        )
        for _ in epochs:
            self.average.update(self.model)
            yield

    def denoise(self, y, r):
        return y - r * self.average.model.predict_eps(y, r)

    def sample(self, n):
        from benchmarks.peers import smalldiffusion

        *_, x = smalldiffusion.samples(
            self.average.model, self.schedule.sample_sigmas(EVALUATIONS), gam=1.6, batchsize=n
        )
        return x


class Diffusers(Peer):
    """The training tutorial of diffusers: noise prediction at a thousand uniform time steps; then its DDIM sampler."""

    def __init__(self, images, seed):
        from diffusers import DDPMScheduler

        torch.manual_seed(seed)
        self.network = network(seed)
        self.scheduler = DDPMScheduler(num_train_timesteps=1000)
        self.average = Averaged(self.network)
        self.ratios = torch.sqrt(1 / self.scheduler.alphas_cumprod.double() - 1)
        self.training = self.steps_of(images, seed)

    def steps_of(self, images, seed):
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=LR_OF_PEERS, fused=True)
        warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / 500, total_iters=500)
        for x in batches(images, seed):
            noise = torch.randn_like(x)
            timesteps = torch.randint(0, 1000, (len(x),))
            predicted = self.predict(self.network, self.scheduler.add_noise(x, noise, timesteps), timesteps)
            loss = nn.functional.mse_loss(predicted, noise)
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            optimizer.step()
            warm_up.step()
            optimizer.zero_grad()
            self.average.update(self.network)
            yield

    @staticmethod
    def predict(network, x, timesteps):
        return network(x, timesteps / 1000)

    def denoise(self, y, r):
        above = int(torch.searchsorted(self.ratios, r.double()).clamp(1, 999))
        low, high = self.ratios[above - 1 : above + 1].log()
        t = above - 1 + (r.log() - low) / (high - low)
        return y - r * self.predict(self.average.model, y / torch.sqrt(1 + r**2), t.to(y))

    @torch.no_grad()
    def sample(self, n):
        from diffusers import DDIMScheduler

        scheduler = DDIMScheduler.from_config(self.scheduler.config)
        scheduler.set_timesteps(EVALUATIONS)
        x = torch.randn(n, *SHAPE)
        for t in scheduler.timesteps:
            x = scheduler.step(self.predict(self.average.model, x, t), t, x).prev_sample
        return x


LEARNERS = {"scorebook": Scorebook, "azula": Azula, "smalldiffusion": SmallDiffusion, "diffusers": Diffusers}
