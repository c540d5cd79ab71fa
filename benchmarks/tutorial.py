r"""Song's tutorial, beside the book's recipe: digits of 28 by 28 after equal seconds of one processor.

The tutorial on score-based models that readers know best (Y. Song, *Generative Modeling by Estimating Gradients of the
Data Distribution*, the PyTorch notebook) trains on MNIST, samples in three ways and computes bits per dimension. Here
its network and its recipe, written from their description, meet the book's on ``lab.mnist``: the same 4000 digits, the
same batch size, no labels. Both train in turns, a few seconds each, and what counts is the time of the processor that
each has had, so that whoever else works on the machine delays both alike. At each budget the weights are set aside, and
measured afterwards:

* the Fréchet distance of new digits to those held out, in the features of a small classifier that was trained on real
  digits, as on the book's page; by Euler-Maruyama, by predictor and corrector, and by the ODE of the flow, for each
  recipe as it solves them: in the steps of the tutorial, or on the book's grids;
* the bits per dimension of digits held out, by one likelihood for both (:func:`bits`): the flow of the learned denoiser
  on the same grid with the same probes, told in the two ways that the page derives.

The shorter budgets come first, of all seeds, and the tutorial's dear samplers last. The states of the training are kept
in ``_build/tutorial``, so that a run that was broken off goes on, and counts the seconds of the earlier one.
``SCOREBOOK_BENCH_SECONDS`` holds other budgets ("3 6") for a quick trial; ``SCOREBOOK_BENCH_MINUTES`` how long a run
may take: what was not begun by then is left out, and the page says what is missing.
"""

import abc
import functools
import itertools
import json
import math
import os
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from scipy.integrate import solve_ivp
from torch import nn

from scorebook import lab, probability_flow, sde

__all__ = ["LEARNERS", "bits", "frechet", "measure", "reader", "seconds_in_all"]

BUDGETS = (15.0, 45.0, 135.0)  # seconds of the processor in training
TURN = 5.0  # of these at a time
BATCH = 32
BIN_WIDTH = 2 / 255  # of a grey level, pixels in [-1, 1]
N_SAMPLES, N_TOLD = 100, 100
BITS = ("bits_by_noise", "bits_per_dim")
FOLDER = Path(__file__).resolve().parent.parent / "_build" / "tutorial"
# Noise-to-signal ratios between which both were trained; the finer end is the tutorial's t = 1e-5.
FINEST, FINE, COARSEST = 0.0064, 0.02, 19.5


class TutorialNetwork(nn.Module):
    """Four levels of 32, 64, 128 and 256 channels, convolved without padding, halved by strides, joined by skips.

    Time enters each level from Gaussian Fourier features of scale 30; group norms, swish, and no residuals. What comes
    out is divided by the standard deviation of the noise.
    """

    def __init__(self, noise_std, channels=(32, 64, 128, 256), n_features=256):
        super().__init__()
        a, b, c, d = channels
        self.noise_std = noise_std
        self.register_buffer("frequencies", 30.0 * torch.randn(n_features // 2))
        self.embed = nn.Linear(n_features, n_features)
        self.down = nn.ModuleList(
            [
                nn.Conv2d(1, a, 3, bias=False),
                nn.Conv2d(a, b, 3, stride=2, bias=False),
                nn.Conv2d(b, c, 3, stride=2, bias=False),
                nn.Conv2d(c, d, 3, stride=2, bias=False),
            ]
        )
        self.up = nn.ModuleList(
            [
                nn.ConvTranspose2d(d, c, 3, stride=2, bias=False),
                nn.ConvTranspose2d(c + c, b, 3, stride=2, bias=False, output_padding=1),
                nn.ConvTranspose2d(b + b, a, 3, stride=2, bias=False, output_padding=1),
            ]
        )
        self.last = nn.ConvTranspose2d(a + a, 1, 3)
        widths = (a, b, c, d, c, b, a)
        self.times = nn.ModuleList(nn.Linear(n_features, width) for width in widths)
        self.norms = nn.ModuleList(nn.GroupNorm(4 if k == 0 else 32, width) for k, width in enumerate(widths))

    def forward(self, x, t):
        angles = 2 * math.pi * t[:, None] * self.frequencies
        embedding = F.silu(self.embed(torch.cat([angles.sin(), angles.cos()], dim=1)))

        def level(number, h):
            return F.silu(self.norms[number](h + self.times[number](embedding)[:, :, None, None]))

        skips, h = [], x
        for number, layer in enumerate(self.down):
            h = level(number, layer(h))
            skips.append(h)
        skips.pop()
        for number, layer in enumerate(self.up, start=len(self.down)):
            h = level(number, layer(h))
            h = torch.cat([h, skips.pop()], dim=1)
        return self.last(h) / self.noise_std(t)[:, None, None, None]


class Learner(abc.ABC):
    """A recipe at work, on images ``(N, 1, 28, 28)`` in [-1, 1]."""

    steps = 0
    seconds = 0.0
    dear = ()  # samplers that take longer to draw than the recipe to train

    def train_until(self, seconds: float) -> None:
        """Train on, until so many seconds of the processor are spent in all."""
        while self.seconds < seconds:
            began = time.process_time()
            self.train(began + min(TURN, seconds - self.seconds))
            self.seconds += time.process_time() - began

    @abc.abstractmethod
    def train(self, until: float) -> None:
        """Take steps until the processor's clock shows this."""

    @abc.abstractmethod
    def state(self) -> dict:
        """All that training goes on from."""

    @abc.abstractmethod
    def restore(self, state: dict) -> None:
        """Go on from there."""

    @abc.abstractmethod
    def denoise(self, y, r):
        """``E[x_0 | y]`` for ``y = x_0 + r z``, ``r`` a scalar tensor; differentiable in ``y``."""

    @abc.abstractmethod
    def samplers(self) -> dict:
        """Functions from a number of digits and a generator to these digits and the evaluations that one took."""


class Tutorial(Learner):
    """The tutorial's recipe, pixels in [0, 1]: VE with sigma 25, uniform times from 1e-5, Adam at 1e-4, no average."""

    sigma = 25.0
    n_steps = 500
    snr = 0.16
    dear = ("predictor-corrector", "ODE")

    def __init__(self, images, seed):
        torch.manual_seed(seed)
        self.images = (images + 1) / 2
        self.model = TutorialNetwork(self.noise_std)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4)
        self.generator = torch.Generator().manual_seed(seed)
        self.order = torch.empty(0, dtype=torch.long)

    def noise_std(self, t):
        """Of the perturbation kernel of dx = sigma^t dw."""
        return torch.sqrt((self.sigma ** (2 * t) - 1) / (2 * math.log(self.sigma)))

    def train(self, until):
        self.model.train()
        while time.process_time() < until:
            if len(self.order) == 0:
                self.order = torch.randperm(len(self.images), generator=self.generator)
            x, self.order = self.images[self.order[:BATCH]], self.order[BATCH:]
            t = 1e-5 + (1 - 1e-5) * torch.rand(len(x), generator=self.generator)
            std = self.noise_std(t)[:, None, None, None]
            z = torch.randn(x.shape, generator=self.generator)
            loss = (std * self.model(x + std * z, t) + z).square().sum((1, 2, 3)).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.steps += 1
        self.model.eval()

    def state(self):
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "order": self.order,
            "steps": self.steps,
            "seconds": self.seconds,
        }

    def restore(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.order, self.steps, self.seconds = state["order"], state["steps"], state["seconds"]
        self.model.eval()

    def score(self, x, t):
        """Of pixels in [0, 1]."""
        return self.model(x, t.expand(len(x)))

    def denoise(self, y, r):
        # With pixels in [0, 1] the noise is half as wide.
        std = r / 2
        t = torch.log1p(2 * math.log(self.sigma) * std**2) / (2 * math.log(self.sigma))
        x = (y + 1) / 2
        return 2 * (x + std**2 * self.score(x, t.to(x))) - 1

    def samplers(self):
        return {
            "Euler-Maruyama": functools.partial(self.by_steps, corrects=False),
            "predictor-corrector": functools.partial(self.by_steps, corrects=True),
            "ODE": self.by_flow,
        }

    @torch.no_grad()
    def by_steps(self, n, generator, *, corrects):
        """500 steps of Euler-Maruyama down to t = 0.001, before each a step of Langevin if asked for."""
        times = torch.linspace(1.0, 1e-3, self.n_steps)
        step = times[0] - times[1]
        x = mean = self.noise_std(times[0]) * torch.randn(n, 1, 28, 28, generator=generator)
        for t in times:
            if corrects:
                score = self.score(x, t)
                ratio = math.sqrt(x[0].numel()) / score.flatten(1).norm(dim=1).mean()
                length = 2 * (self.snr * ratio) ** 2
                x = x + length * score + torch.sqrt(2 * length) * torch.randn(x.shape, generator=generator)
            g = self.sigma**t
            mean = x + g**2 * self.score(x, t) * step
            x = mean + torch.sqrt(step) * g * torch.randn(x.shape, generator=generator)
        return 2 * mean - 1, self.n_steps * (1 + corrects)

    @torch.no_grad()
    def by_flow(self, n, generator):
        """RK45 of SciPy to a tolerance of 1e-5, from t = 1 to 0.001."""
        x = self.noise_std(torch.tensor(1.0)) * torch.randn(n, 1, 28, 28, generator=generator)

        def rate(t, flat):
            score = self.score(torch.from_numpy(flat).float().reshape(x.shape), torch.tensor(t).float())
            return -0.5 * self.sigma ** (2 * t) * score.flatten().double().numpy()

        solved = solve_ivp(rate, (1.0, 1e-3), x.flatten().double().numpy(), rtol=1e-5, atol=1e-5, method="RK45")
        return 2 * torch.from_numpy(solved.y[:, -1]).float().reshape(x.shape) - 1, solved.nfev


class Folded(nn.Module):
    """A network that sees a picture of half the side and four times the channels: each 2 by 2 pixels are one place."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, t, **condition):
        return F.pixel_shuffle(self.network(F.pixel_unshuffle(x, 2), t, **condition), 2)


class Book(Learner):
    """The book's recipe: a preconditioned score model, log-normal noise levels, averaged weights; see ``make weights``.

    Its network is the package's U-net on folded pixels, of which a step costs as much as one of the tutorial's network.
    """

    evaluations = 32  # of the flow
    n_steps = 64  # of the reverse SDE, half of them the corrector's where it corrects
    lr = 2e-3

    def __init__(self, images, seed):
        self.images = images
        self.process = sde.VPSDE()
        self.generator = torch.Generator().manual_seed(seed)
        self.model = sde.ScoreModel(self.network(seed), self.process, data_std=images.std().item())
        self.noise_levels = sde.log_normal_times(self.process, mean=-0.6, std=1.8, t_min=1e-5)
        self.folder = tempfile.TemporaryDirectory()
        self.checkpoint = Path(self.folder.name) / "state.pt"

    @staticmethod
    def network(seed):
        return Folded(lab.UNet(4, width=32, generator=torch.Generator().manual_seed(seed)))

    def train(self, until):
        loss = functools.partial(_loss, process=self.process, noise_levels=self.noise_levels)
        while (left := until - time.process_time()) > 0:
            pace = self.seconds / self.steps if self.steps and self.seconds else 0.1  # seconds a step
            self.steps += max(1, round(left / pace))
            lab.fit(
                self.model,
                loss,
                self.images,
                n_steps=self.steps,
                batch_size=BATCH,
                lr=self.lr,
                checkpoint=self.checkpoint,
                checkpoint_every=10**9,
                generator=self.generator,
            )

    def state(self):
        return {
            "model": self.model.state_dict(),
            "checkpoint": self.checkpoint.read_bytes(),
            "steps": self.steps,
            "seconds": self.seconds,
        }

    def restore(self, state):
        self.model.load_state_dict(state["model"])
        self.checkpoint.write_bytes(state["checkpoint"])
        self.steps, self.seconds = state["steps"], state["seconds"]
        self.model.eval()

    def denoise(self, y, r):
        t = self.process.time_of(r)
        return self.process.denoise(self.model, y * self.process.alpha(t).to(y), t)

    def samplers(self):
        return {
            "Euler-Maruyama": functools.partial(self.by_steps, sampler=sde.euler_maruyama, n_steps=self.n_steps),
            # Each of its steps asks the network twice.
            "predictor-corrector": functools.partial(
                self.by_steps, sampler=sde.predictor_corrector, n_steps=self.n_steps // 2
            ),
            "ODE": self.by_flow,
        }

    def noise(self, n, generator):
        return self.process.sample_prior((n, 1, 28, 28), generator=generator)

    def by_steps(self, n, generator, *, sampler, n_steps):
        """The reverse SDE on Karras' grid; the last evaluation takes away the noise that is left."""
        times = self.process.time_grid(n_steps, spacing="karras")
        x = sampler(self.process, self.model, self.noise(n, generator), times=times, generator=generator)
        return x, self.n_steps + 1

    def by_flow(self, n, generator):
        """The default solver."""
        x = probability_flow.sample(self.process, self.model, self.noise(n, generator), n_steps=self.evaluations)
        return x, self.evaluations


def _loss(model, x, *, process, noise_levels, generator):
    x = probability_flow.dequantize(x, BIN_WIDTH, generator=generator)
    return sde.score_matching_loss(
        model, process, x, weighting=model.weight, sample_times=noise_levels, generator=generator
    )


LEARNERS = {"Song's tutorial": Tutorial, "scorebook": Book}


def measure(repetitions=5):
    """Rows by ``recipe``, ``budget_s`` and ``repetition``: ``steps``, ``seconds``, bits and a row for each sampler.

    The rows of ``"real digits"`` and ``"one Gaussian"`` are what the others are to be read against.
    """
    lab.use_one_thread()  # the clock adds up what all threads do
    budgets = [float(text) for text in os.environ.get("SCOREBOOK_BENCH_SECONDS", "").split()] or list(BUDGETS)
    (images, labels), (held_out, _) = lab.mnist("train"), lab.mnist("test")
    see = reader(images, labels)
    rows, began = yardsticks(images, held_out, see, repetitions), time.perf_counter()
    limit = began + 60 * float(os.environ.get("SCOREBOOK_BENCH_MINUTES", "inf"))
    cases = [(budget, seed) for budget in budgets for seed in range(repetitions)]
    for (dear, (budget, seed)), name in itertools.product(itertools.product((False, True), cases), LEARNERS):
        if time.perf_counter() < limit:
            train(images, seed, [b for b in budgets if b <= budget], limit)
            if path_of(name, seed, budget).exists():
                measured(name, images, held_out, see, seed, budget, dear)
            began = passed(began)
    kept = [path_of(name, seed, budget, "json") for budget, seed in cases for name in LEARNERS]
    return rows + [row for path in kept if path.exists() for row in json.loads(path.read_text(encoding="utf-8"))]


def seconds_in_all() -> float:
    """How long this run has taken, and earlier ones that were broken off."""
    clock = FOLDER / "seconds.json"
    return json.loads(clock.read_text(encoding="utf-8")) if clock.exists() else 0.0


def passed(began):
    """Add the time since then to the seconds in all; returns the time now."""
    now = time.perf_counter()
    (FOLDER / "seconds.json").write_text(json.dumps(seconds_in_all() + now - began), encoding="utf-8")
    return now


def path_of(name, seed, budget, kind="pt"):
    """Where the state of a recipe at a budget is kept, or what was measured of it."""
    return FOLDER / f"{name.replace(' ', '_')}-{seed}-{budget:g}.{kind}"


def train(images, seed, budgets, limit=math.inf, names=tuple(LEARNERS)):
    """Train recipes in turns, and set their states aside at each budget, as far as the limit of the clock allows."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    learners = {name: LEARNERS[name](images, seed) for name in names}
    for name in names:
        done = [budget for budget in budgets if path_of(name, seed, budget).exists()]
        if done:
            learners[name].restore(torch.load(path_of(name, seed, done[-1]), weights_only=True))
        else:
            LEARNERS[name](images, seed).train_until(0.5)  # the first calls of anything are slow
    for budget in budgets:
        while any(learner.seconds < budget for learner in learners.values()):
            if time.perf_counter() > limit:
                return
            for learner in learners.values():
                learner.train_until(min(budget, learner.seconds + TURN))
        for name, learner in learners.items():
            if not path_of(name, seed, budget).exists():
                torch.save(learner.state(), path_of(name, seed, budget))
                print(f"{name}, seed {seed}: {learner.steps} steps in {learner.seconds:.0f} s", flush=True)


def measured(name, images, held_out, see, seed, budget, dear):
    """Measure what a recipe knew at a budget, and keep a row for each sampler; the dear ones are another time's."""
    kept = path_of(name, seed, budget, "json")
    rows = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else []
    learner = LEARNERS[name](images, seed)
    done = {row["sampler"] for row in rows}
    asked = {key: draw for key, draw in learner.samplers().items() if (key in learner.dear) == dear and key not in done}
    if asked:
        learner.restore(torch.load(path_of(name, seed, budget), weights_only=True))
        case = {"recipe": name, "budget_s": budget, "repetition": seed, "steps": learner.steps}
        case |= {"seconds": learner.seconds}
        case |= {key: rows[0][key] for key in BITS} if rows else bits(learner.denoise, images, held_out)
    for sampler, draw in asked.items():
        began = time.process_time()
        x, evaluations = draw(N_SAMPLES, torch.Generator().manual_seed(seed))
        spent = (time.process_time() - began) / N_SAMPLES
        found = {"sampler": sampler, "evaluations": evaluations, "seconds_a_digit": spent}
        rows.append(case | found | {"frechet": frechet(see(x), see(spread_out(held_out, 1)))})
        print(rows[-1], flush=True)
        kept.write_text(json.dumps(rows), encoding="utf-8")


def spread_out(x, seed):
    """Digits whose grey levels are spread over their bins."""
    return probability_flow.dequantize(x, BIN_WIDTH, generator=torch.Generator().manual_seed(seed))


def reader(images, labels):
    """Features of digits: the last hidden layer of a small classifier, trained on real digits as on the book's page."""
    network = nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2, padding=2),
        nn.SiLU(),
        nn.Conv2d(8, 16, 5, stride=2, padding=2),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(16 * 49, 32),
        nn.SiLU(),
        nn.Linear(32, 10),
    )
    lab.initialise(network, generator=torch.Generator().manual_seed(2))
    lab.fit(
        network,
        lambda network, x, labels: F.cross_entropy(network(x), labels),
        (images, labels),
        n_steps=400,
        batch_size=100,
        lr=3e-3,
        schedule="cosine",
        ema_decay=None,
        generator=torch.Generator().manual_seed(3),
    )

    @torch.no_grad()
    def features(x):
        return network[:-1](x).double()

    return features


def frechet(x, y) -> float:
    """Fréchet distance of two Gaussians, with the means and covariances of two lists of features."""
    (mean_x, spread_x), (mean_y, spread_y) = ((f.mean(0), f.T.cov()) for f in (x, y))
    values, vectors = torch.linalg.eigh(spread_x)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    shared = torch.linalg.eigvalsh(root @ spread_y @ root).clamp(min=0).sqrt().sum()
    return ((mean_x - mean_y).square().sum() + spread_x.trace() + spread_y.trace() - 2 * shared).item()


def bits(denoise, images, held_out, *, n_steps=30, divergence="hutchinson") -> dict:
    """Bits per dimension of digits held out, told in two ways by the flow of a denoiser.

    ``bits_by_noise`` tells the digit with noise of ratio 0.02, then the digit given that, by the frequencies of grey
    levels in the training digits: the variational bound of the book's page. ``bits_per_dim`` spreads each grey level
    over its bin and asks for the density there, at the finest noise that both have learned.
    """
    rows = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(0))[:N_TOLD]
    x = held_out[rows].to(torch.promote_types(held_out.dtype, torch.float32))
    n_dims = x[0].numel()

    def told(y, finest):
        process = sde.VESDE(sigma_min=finest, sigma_max=COARSEST)

        def score(y, t):
            r = process.sigma(t)
            return (denoise(y, r) - y) / r**2

        return probability_flow.log_prob(
            process,
            score,
            y,
            divergence=divergence,
            method="adams",
            times=process.time_grid(n_steps, t_min=1e-9, spacing="log"),
            generator=torch.Generator().manual_seed(1),
        )

    noised = x + FINE * torch.randn(x.shape, generator=torch.Generator().manual_seed(2)).to(x)
    nats = told(noised, FINE).double() + given_noise(images, x, noised)
    even = told(spread_out(x, 3), FINEST)
    return {
        "bits_by_noise": -nats.mean().item() / (n_dims * math.log(2)),
        "bits_per_dim": probability_flow.bits_per_dim(even, n_dims, BIN_WIDTH).mean().item(),
    }


def given_noise(images, x, noised):
    """Log-probability of digits given their noised versions, less the log-density of the noise."""

    def levels(x):
        return ((x + 1) * 127.5).round().long().flatten(1)

    frequency = (torch.bincount(levels(images).flatten(), minlength=256) + 1).double()
    gap = noised.flatten(1).unsqueeze(2) - (torch.arange(256) / 127.5 - 1)
    of_levels = (-0.5 * (gap / FINE).square() + (frequency / frequency.sum()).log()).log_softmax(2)
    of_noise = torch.distributions.Normal(x, FINE).log_prob(noised).flatten(1).double().sum(1)
    return of_levels.gather(2, levels(x).unsqueeze(2)).flatten(1).sum(1) - of_noise


def yardsticks(images, held_out, see, repetitions):
    """What training digits and one Gaussian get, as many of them as are drawn of a recipe."""
    gaussian = gaussian_of(images)
    rows, y = [], see(spread_out(held_out, 1))
    for seed in range(repetitions):
        generator = torch.Generator().manual_seed(seed)
        real = images[torch.randperm(len(images), generator=generator)[:N_SAMPLES]]
        drawn = gaussian.sample(N_SAMPLES, generator=generator).float().reshape(-1, 1, 28, 28)
        rows.append({"recipe": "real digits", "repetition": seed, "frechet": frechet(see(spread_out(real, 0)), y)})
        rows.append({"recipe": "one Gaussian", "repetition": seed, "frechet": frechet(see(drawn), y)})
    return rows


def gaussian_of(images):
    """The Gaussian with the mean and covariance of dequantized digits."""
    x = spread_out(images, 0).flatten(1).double()
    return lab.GaussianMixture(torch.ones(1), x.mean(0, keepdim=True), torch.cov(x.T).unsqueeze(0))
