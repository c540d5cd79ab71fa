"""Each keyword of each public function matters, and what draws at random draws from its generator alone.

``CALLS`` has a line for each public function with a keyword: a call of it, and for each keyword another value than that
of the call. The result has to change, or the keyword was dropped on its way. ``ONE_RESULT`` names those that by their
nature change no result. A function that takes a ``generator`` has to give the same for the same seed, something else
for another, and to leave the global generators where they were, with and without labels, guidance or whatever else its
keywords bring into play.
"""

import dataclasses
import importlib
import inspect
import json
import random
from dataclasses import dataclass, field

import numpy as np
import public
import pytest
import torch
from matplotlib import pyplot as plt
from sklearn.neighbors import KNeighborsClassifier
from surface import log_prob, mixture, score
from surface.plots import drawn
from torch import nn

from scorebook import (
    controllable_generation,
    lab,
    langevin,
    monte_carlo,
    noise_scales,
    probability_flow,
    score_matching,
    sde,
    sliced_score_matching,
)
from scorebook.lab import arguments, datasets, diagnostics, metrics, networks, plots, tables, training

VP, VE = sde.VPSDE(), sde.VESDE()
SIGMAS = torch.tensor([2.0, 1.0, 0.3], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 0, 1])
GRID = torch.tensor([1.0, 0.5, 0.2, 0.05], dtype=torch.float64)
EVEN = torch.tensor([1.0, 0.7, 0.4, 0.05], dtype=torch.float64)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def points(seed=3, n=5):
    return torch.randn(n, 2, generator=seeded(seed), dtype=torch.float64)


def curved(x, *noise_level):
    """A field whose divergence, Jacobian and step all depend on the place."""
    return torch.stack([x[:, 1] ** 2 - x[:, 0] ** 3, torch.sin(3 * x[:, 0]) - x[:, 1]], dim=1)


def half_as_steep(x, *noise_level):
    return -0.5 * x


def trained(network):
    """A network whose output is not zero, as it is before training."""
    with torch.no_grad():
        for weight in network.parameters():
            if not weight.any():
                weight.copy_(torch.randn(weight.shape, generator=seeded(1)) / 3)
    return network.double()


def model(process=VP):
    return sde.ScoreModel(trained(lab.TimeMLP(2, width=8, depth=1, n_classes=3, generator=seeded())), process)


def classifier():
    return trained(lab.NoisyClassifier(2, 3, width=8, depth=1, generator=seeded()))


def observation():
    return controllable_generation.LinearObservation(
        torch.tensor([[1.0, 0.5]], dtype=torch.float64), torch.tensor([0.7], dtype=torch.float64), 0.3
    )


@dataclass
class Keywords:
    """A call with its keywords, and another value for each of them."""

    run: object
    base: dict = field(default_factory=dict)
    other: dict = field(default_factory=dict)


class Beside:
    """Another value of a keyword that matters only beside these values of others, which the first call has too."""

    def __init__(self, value, **others):
        self.value, self.others = value, others


def on_axes(draw, *arguments):
    """What a plot draws: the numbers, and the words and colours beside them."""

    def run(**keywords):
        ax = draw(*arguments, **keywords)
        colours = [np.asarray(part.get_facecolor(), float) for part in (*ax.collections, *ax.patches)]
        colours += [np.asarray(part.get_edgecolor(), float) for part in ax.collections]
        seen = [*map(torch.as_tensor, colours), torch.tensor([*ax.get_xlim(), *ax.get_ylim()])]
        quivers = [part for part in ax.collections if hasattr(part, "U")]
        seen += [torch.as_tensor(np.asarray(side, float)) for part in quivers for side in (part.U, part.V)]
        seen += [torch.tensor(ax.figure.axes.index(ax)), torch.tensor([len(ax.figure.axes)])]
        words = ax.get_legend_handles_labels()[1] + [t.get_text() for t in ax.texts]
        maps = [image.get_cmap().name for image in (*ax.images, *ax.collections)]
        lines = [torch.as_tensor(np.asarray(line.get_xydata(), float)) for line in ax.lines]
        sizes = [torch.as_tensor(part.get_sizes()) for part in ax.collections if hasattr(part, "get_sizes")]
        return [*seen, *lines, *sizes, *drawn(ax)], words, maps

    return run


def second_axes():
    return plt.subplots(1, 2)[1][1]


CALLS = {
    "langevin.gradient_ascent": Keywords(
        lambda **k: langevin.gradient_ascent(score, points(), **k),
        {"step_size": 0.1, "n_steps": 3},
        {"step_size": 0.2, "n_steps": 4, "trajectory": True},
    ),
    "langevin.langevin": Keywords(
        lambda **k: langevin.langevin(score, points(), **k),
        {"step_size": 0.1, "n_steps": 3, "generator": 0},
        {"step_size": 0.2, "n_steps": 4, "generator": 1, "trajectory": True},
    ),
    "langevin.metropolis_adjusted_langevin": Keywords(
        lambda **k: langevin.metropolis_adjusted_langevin(log_prob, points(), **k),
        {"step_size": 0.1, "n_steps": 3, "generator": 0},
        {"step_size": 0.2, "n_steps": 4, "generator": 1, "trajectory": True},
    ),
    "langevin.autocorrelation": Keywords(lambda **k: langevin.autocorrelation(points(n=9), **k), {}, {"max_lag": 3}),
    "noise_scales.annealed_langevin": Keywords(
        lambda **k: noise_scales.annealed_langevin(score, points(), SIGMAS, **k),
        {"step_size": 0.1, "n_steps_each": 2, "generator": 0},
        {"step_size": 0.2, "n_steps_each": 3, "generator": 1, "denoise": False, "trajectory": True},
    ),
    "noise_scales.denoising_score_matching_loss": Keywords(
        lambda **k: noise_scales.denoising_score_matching_loss(half_as_steep, points(), 0.5, **k),
        {"generator": 0},
        {"generator": 1, "weighting": lambda sigma: sigma**0.5},
    ),
    "noise_scales.geometric_noise_scales": Keywords(
        lambda **k: noise_scales.geometric_noise_scales(2.0, 0.1, 3, **k),
        {},
        {"dtype": torch.float64, "device": "meta"},
    ),
    "score_matching.explicit_score_matching_loss": Keywords(
        lambda **k: score_matching.explicit_score_matching_loss(curved, points(), score, **k), {}, {"reduction": "none"}
    ),
    "score_matching.implicit_score_matching_loss": Keywords(
        lambda **k: score_matching.implicit_score_matching_loss(curved, points(), **k), {}, {"reduction": "none"}
    ),
    "score_matching.fisher_divergence": Keywords(
        lambda **k: score_matching.fisher_divergence(curved, score, points(), **k), {}, {"reduction": "none"}
    ),
    "score_matching.integrate_score": Keywords(
        lambda **k: score_matching.integrate_score(curved, points(), points(4), **k), {"n_nodes": 1}, {"n_nodes": 2}
    ),
    "sliced_score_matching.random_projections": Keywords(
        lambda **k: sliced_score_matching.random_projections(points(), 2, **k),
        {"generator": 0},
        {"generator": 1, "kind": "gaussian"},
    ),
    "sliced_score_matching.sliced_score_matching_loss": Keywords(
        lambda **k: sliced_score_matching.sliced_score_matching_loss(curved, points(), **k),
        {"generator": 0},
        {"generator": 1, "kind": "gaussian", "n_projections": 2, "reduction": "none"}
        | {"variance_reduced": Beside(False, kind="gaussian")},
    ),
    "arguments.uniform": Keywords(
        lambda **k: arguments.uniform((3,), **k),
        {"generator": 0},
        {"generator": 1, "dtype": torch.float64, "device": "meta"},
    ),
    "sde.euler_maruyama": Keywords(
        lambda **k: sde.euler_maruyama(VP, score, points(), **k),
        {"n_steps": 3, "generator": 0},
        {"n_steps": 4, "generator": 1, "t_min": 0.1, "denoise": False, "trajectory": True}
        | {"times": Beside(GRID, n_steps=None, times=EVEN), "constraint": lambda x, t: x.clamp(-0.1, 0.1)},
    ),
    "sde.predictor_corrector": Keywords(
        lambda **k: sde.predictor_corrector(VP, score, points(), **k),
        {"n_steps": 3, "generator": 0},
        {"n_steps": 4, "generator": 1, "t_min": 0.1, "denoise": False, "trajectory": True, "snr": 0.3}
        | {
            "times": Beside(GRID, n_steps=None, times=EVEN),
            "constraint": lambda x, t: x.clamp(-0.1, 0.1),
            "n_corrector_steps": 2,
        },
    ),
    "sde.log_normal_times": Keywords(
        lambda **k: sde.log_normal_times(VP, **k)(50, seeded()), {}, {"mean": 0.0, "std": 0.5, "t_min": 0.5}
    ),
    "sde.time_sampler": Keywords(
        lambda **k: sde.time_sampler(VP, **k)(50, seeded()),
        {"uniform_in": "t"},
        {"uniform_in": "log_noise", "low_discrepancy": False, "t_min": 0.5},
    ),
    "sde.score_matching_loss": Keywords(
        lambda **k: sde.score_matching_loss(model(), VP, points(), **k),
        {"generator": 0, "labels": LABELS},
        {"generator": 1, "labels": LABELS.flip(0), "p_drop": 0.9, "weighting": "likelihood", "t_min": 0.5}
        | {"sample_times": lambda n, generator: torch.full((n,), 0.3, dtype=torch.float64)},
    ),
    "sde.denoising_loss": Keywords(
        lambda **k: sde.denoising_loss(model(), points(), **k),
        {"generator": 0, "labels": LABELS},
        {"generator": 1, "labels": LABELS.flip(0), "p_drop": 0.9}
        | {"sample_times": lambda n, generator: torch.full((n,), 0.3, dtype=torch.float64)},
    ),
    "sde.simulate": Keywords(
        lambda **k: sde.simulate(lambda x, t: -x, lambda x, t: 1.0, points(), GRID, **k),
        {"generator": 0},
        {
            "generator": 1,
            "trajectory": True,
            "increments": Beside(torch.ones(3, 5, 2).double(), increments=torch.zeros(3, 5, 2).double()),
        },
    ),
    "probability_flow.flow_matching_loss": Keywords(
        lambda **k: probability_flow.flow_matching_loss(model().network, points(), **k),
        {"generator": 0, "labels": LABELS},
        {"generator": 1, "labels": LABELS.flip(0), "p_drop": 0.9, "sde": VP}
        | {"sample_times": lambda n, generator: torch.full((n,), 0.3, dtype=torch.float64)},
    ),
    "probability_flow.dequantize": Keywords(
        lambda **k: probability_flow.dequantize(points(), 0.5, **k), {"generator": 0}, {"generator": 1}
    ),
    "probability_flow.encode": Keywords(
        lambda **k: probability_flow.encode(VP, curved, 0.1 * points(), n_steps=3, **k), {}, {"trajectory": True}
    ),
    "probability_flow.sample": Keywords(
        lambda **k: probability_flow.sample(VP, half_as_steep, points(), **k),
        {"n_steps": 12},
        {
            "n_steps": 13,
            "method": "euler",
            "t_min": 0.1,
            "trajectory": True,
            "with_log_prob": True,
            "data_std": 3.0,
            "times": Beside(GRID, n_steps=None, times=EVEN, method="adams"),
        }
        | {"rtol": Beside(1e-2, n_steps=None), "atol": Beside(1e-1, n_steps=None)},
    ),
    "probability_flow.log_prob": Keywords(
        lambda **k: probability_flow.log_prob(VP, curved, 0.1 * points(), n_steps=3, **k),
        {"divergence": "hutchinson", "generator": 0},
        {"divergence": "exact", "generator": 1, "n_projections": 2, "prior": lambda x: x[:, 0]},
    ),
    "controllable_generation.classifier_loss": Keywords(
        lambda **k: controllable_generation.classifier_loss(classifier(), VP, points(), LABELS, **k),
        {"generator": 0},
        {"generator": 1, "sample_times": lambda n, generator: torch.full((n,), 0.3, dtype=torch.float64)},
    ),
    "controllable_generation.colour_basis": Keywords(
        controllable_generation.colour_basis, {}, {"dtype": torch.float64, "device": "meta"}
    ),
    "controllable_generation.condition": Keywords(
        lambda **k: controllable_generation.condition(score, lambda x, t: log_prob(x), **k)(points(), 0.5),
        {},
        {"scale": 2.0},
    ),
    "controllable_generation.diffusion_posterior": Keywords(
        lambda **k: controllable_generation.diffusion_posterior(score, VP, observation(), **k)(5 * points(), 0.5),
        {},
        {"scale": 0.01, "limit": 0.1},
    ),
    "controllable_generation.pseudoinverse_guidance": Keywords(
        lambda **k: controllable_generation.pseudoinverse_guidance(score, VP, observation(), **k)(points(), 0.5),
        {},
        {"data_std": 2.0},
    ),
    "controllable_generation.replace_known": Keywords(
        lambda **k: controllable_generation.replace_known(VP, points(), torch.tensor([True, False]).expand(5, 2), **k)(
            points(4), torch.tensor(0.5)
        ),
        {"generator": 0},
        {"generator": 1},
    ),
    "controllable_generation.twisted_particles": Keywords(
        lambda **k: controllable_generation.twisted_particles(curved, VP, observation(), points(), **k),
        {"n_steps": 3, "generator": 0},
        {"n_steps": 4, "generator": 1, "twist": "tweedie", "data_std": 2.0, "diagnostics": True},
    ),
    "arguments.as_given": Keywords(lambda **k: arguments.as_given(0.5, **k), {}, {"dtype": torch.float64}),
    "arguments.standard_normal": Keywords(
        lambda **k: arguments.standard_normal((3,), **k),
        {"generator": 0},
        {"generator": 1, "dtype": torch.float64, "device": "meta"},
    ),
    "datasets.checkerboard": Keywords(lambda **k: datasets.checkerboard(9, **k), {"generator": 0}, {"generator": 1}),
    "datasets.moons": Keywords(lambda **k: datasets.moons(9, **k), {"generator": 0}, {"generator": 1, "noise": 0.3}),
    "datasets.swiss_roll": Keywords(
        lambda **k: datasets.swiss_roll(9, **k), {"generator": 0}, {"generator": 1, "noise": 0.3}
    ),
    "datasets.digits": Keywords(datasets.digits, {}, {"split": "test"}),
    "datasets.coloured_digits": Keywords(datasets.coloured_digits, {}, {"split": "test"}),
    "datasets.mnist": Keywords(datasets.mnist, {}, {"split": "test"}),
    "diagnostics.calibration": Keywords(
        lambda **k: diagnostics.calibration(points(n=9)[:, None], points(4, 1), **k), {}, {"n_bins": 3}
    ),
    "diagnostics.copying": Keywords(
        lambda **k: diagnostics.copying(points(n=9), points(4, 9), points(5, 9), **k), {}, {"usual": 0.9}
    ),
    "diagnostics.coverage": Keywords(
        lambda **k: diagnostics.coverage(points(n=9)[:, None], points(4, 1), **k), {}, {"level": 0.1}
    ),
    "diagnostics.covered": Keywords(
        lambda **k: diagnostics.covered(points(n=9)[:, None], points(4, 1), **k), {}, {"level": 0.1}
    ),
    "diagnostics.told_apart": Keywords(
        lambda **k: diagnostics.told_apart(points(n=60), points(4, 60), **k),
        {"generator": 0},
        {"generator": 1, "classifier": KNeighborsClassifier(1)},
    ),
    "distributed.in_chunks": Keywords(
        lambda **k: lab.in_chunks(
            lambda x, generator: x + len(x) + torch.randn(x.shape, generator=generator), points(), **k
        ),
        {"generator": 0, "chunk_size": 2},
        {"generator": 1, "chunk_size": 3},
    ),
    "distributed.over_ranks": Keywords(
        lambda **k: lab.over_ranks(lambda x, generator: x + torch.randn(x.shape, generator=generator), points(), **k),
        {"generator": 0},
        {"generator": 1},
    ),
    "distributions.GaussianMixture.sample": Keywords(
        lambda **k: mixture().sample(9, **k), {"generator": 0}, {"generator": 1, "labels": True}
    ),
    "distributions.RowwiseMixture.sample": Keywords(
        lambda **k: mixture().diffuse(torch.linspace(0.2, 1, 5), torch.linspace(0.1, 2, 5)).sample(5, **k),
        {"generator": 0},
        {"generator": 1, "labels": True},
    ),
    "estimates.Estimate.interval": Keywords(
        lambda **k: monte_carlo.expectation(lambda x: x[:, 0], points()).interval(**k), {}, {"level": 0.5}
    ),
    "metrics.sliced_wasserstein": Keywords(
        lambda **k: metrics.sliced_wasserstein(points(), points(4), **k),
        {"generator": 0},
        {"generator": 1, "n_projections": 3, "p": 2},
    ),
    "networks.TimeMLP.forward": Keywords(
        lambda **k: trained(lab.TimeMLP(2, width=8, depth=1, n_classes=3, generator=seeded()))(
            points(), torch.full((5,), 0.5).double(), **k
        ),
        {"label": LABELS},
        {"label": LABELS.flip(0)},
    ),
    "networks.UNet.forward": Keywords(
        lambda **k: trained(lab.UNet(1, width=8, n_classes=3, generator=seeded()))(
            points()[:, :1, None, None].expand(5, 1, 8, 8), torch.full((5,), 0.5).double(), **k
        ),
        {"label": LABELS},
        {"label": LABELS.flip(0)},
    ),
    "networks.initialise": Keywords(
        lambda **k: list(networks.initialise(nn.utils.skip_init(nn.Linear, 2, 2), **k).parameters()),
        {"generator": 0},
        {"generator": 1},
    ),
    "plots.density": Keywords(
        on_axes(plots.density, log_prob),
        {"extent": (-2, 2, -2, 2), "resolution": 9},
        {"extent": (-3, 2, -2, 2), "resolution": 10, "ax": second_axes, "cmap": "viridis"},
    ),
    "plots.score_field": Keywords(
        on_axes(plots.score_field, curved),
        {"extent": (-2, 2, -2, 2), "resolution": 4},
        {"extent": (-3, 2, -2, 2), "resolution": 5, "ax": second_axes, "scale": 3.0, "color": "red"},
    ),
    "plots.samples": Keywords(
        on_axes(plots.samples, points()),
        {},
        {"ax": second_axes, "color": "red", "size": 9.0, "alpha": 0.1, "label": "dots", "extent": (-3, 3, -2, 2)},
    ),
    "plots.trajectories": Keywords(
        on_axes(plots.trajectories, torch.stack([points(s) for s in range(4)])),
        {"times": None},
        {"ax": second_axes, "color": "red", "alpha": 0.1, "extent": (-3, 3, -2, 2)},
    ),
    "plots.image_grid": Keywords(
        on_axes(plots.image_grid, torch.rand(5, 1, 3, 3, generator=seeded())),
        {"n_cols": 3},
        {"n_cols": 2, "ax": second_axes, "gap": 3},
    ),
    "plots.samples, numbers": Keywords(
        on_axes(plots.samples, points()[:, 0]),
        {},
        {"ax": second_axes, "color": "red", "alpha": 0.1, "label": "bars", "extent": (-0.5, 3.0)},
    ),
    "plots.density, interval": Keywords(
        on_axes(plots.density, log_prob),
        {"extent": (-2, 2), "resolution": 9},
        {"extent": (-3, 2), "resolution": 10, "ax": second_axes},
    ),
    "tables.significant": Keywords(lambda **k: tables.significant(0.5, 4, **k), {}, {"trim": True}),
    "tables.table": Keywords(
        lambda **k: repr(tables.table({"a": [1.23456]}, **k)), {}, {"digits": 5, "caption": "a caption"}
    ),
    "training.held_out_loss": Keywords(
        lambda **k: torch.tensor(training.held_out_loss(model(), sde.denoising_loss, points(n=30), **k)),
        {"generator": 0, "batch_size": 3},
        {"generator": 1, "batch_size": 2},
    ),
    "training.History.smoothed": Keywords(
        lambda **k: training.History(torch.arange(9.0), 1.0).smoothed(**k),
        {},
        {"window": 2},
    ),
}
for name, process in {"VESDE": VE, "VPSDE": VP, "SubVPSDE": sde.SubVPSDE(), "StraightPath": sde.StraightPath()}.items():
    CALLS |= {
        f"sde.{name}.perturb": Keywords(
            lambda process=process, **k: process.perturb(points(), 0.5, **k), {"generator": 0}, {"generator": 1}
        ),
        f"sde.{name}.sample_prior": Keywords(
            lambda process=process, **k: process.sample_prior((3, 2), **k),
            {"generator": 0},
            {"generator": 1, "dtype": torch.float64, "device": "meta"},
        ),
        f"sde.{name}.time_grid": Keywords(
            lambda process=process, **k: process.time_grid(4, **k),
            {},
            {"t_min": 0.1, "spacing": "karras", "dtype": torch.float64, "data_std": Beside(2.0, spacing="share")},
        ),
    }

MEMORY = "how many at once: the result is the same by design, its tests count passes"
HIDDEN = "whether a field that hides its derivatives is refused, in test_gradients"
GRAPH = "whether the same numbers lead back to what they were made of"
TESTED = "what it does is tested for itself, in"
ONE_RESULT = {
    "arguments.expand.name": "a word of the message",
    "arguments.fits.of": "a word of the message",
    "datasets.full_mnist": "needs torchvision's files",
    "distributed.any_rank": f"{TESTED} test_distributed",
    "distributed.join": f"{TESTED} test_distributed",
    "gradients.checked.of": "a word of the message",
    "gradients.checked.argument": "a word of the message",
    "plots.density.device": "where the function is asked, in test_plots",
    "plots.density.dtype": "in which precision the function is asked, in test_plots",
    "plots.score_field.device": "where the function is asked, in test_plots",
    "plots.score_field.dtype": "in which precision the function is asked, in test_plots",
    "plots.trajectories.times": "colours by time, in test_plots",
    "probability_flow.encode.differentiable": GRAPH,
    "probability_flow.log_prob.chunk_size": MEMORY,
    "probability_flow.log_prob.differentiable": GRAPH,
    "probability_flow.sample.differentiable": GRAPH,
    "score_matching.divergence": MEMORY,
    "score_matching.implicit_score_matching_loss.chunk_size": MEMORY,
    "score_matching.value_and_divergence.chunk_size": MEMORY,
    "score_matching.value_and_divergence.check": HIDDEN,
    "sliced_score_matching.value_and_slices.check": HIDDEN,
    "coursework_problems.refuse_dependent_noise": f"{TESTED} test_coursework_problems",
    "coursework_problems.refuse_other_times": f"{TESTED} test_coursework_problems",
    "coursework_reports.Answer.exact": f"{TESTED} test_coursework_reports",
    "coursework_reports.Answer.mean_of": f"{TESTED} test_coursework_reports",
    "coursework_reports.Answer.misfit": f"{TESTED} test_coursework_reports",
    "coursework_reports.slips": f"{TESTED} test_catalogue",
    "distributed.in_chunks.progress": "shows a bar, in test_distributed",
    "fingerprints.describe": f"{TESTED} test_fingerprints",
    "training.fit": f"{TESTED} test_training",
    "widgets.explorer": f"{TESTED} test_widgets",
} | {
    f"coursework_{module}.check_{name}": "what a check finds is in test_coursework_mistakes"
    for module, names in {
        "class_guidance": ("classifier_free", "classifier_guidance", "label_dropping"),
        "controllable_generation": ("guidance",),
        "denoising_diffusion": ("conversion", "ddim_step", "ddpm_step"),
        "learning": ("divergence", "loss", "score"),
        "metropolis": ("metropolis",),
        "monte_carlo": ("estimate",),
        "posterior": ("coverage", "posterior", "ranks"),
        "probability_flow": ("log_prob", "probability_flow"),
        "sampling": ("annealed", "langevin"),
        "sde": ("reverse_step", "sampler", "sde"),
        "sliced_score_matching": ("projections",),
    }.items()
    for name in names
}


def function(module, name):
    thing = importlib.import_module(public.MODULES[module])
    for part in name.split("."):
        thing = inspect.getattr_static(thing, part) if inspect.isclass(thing) else getattr(thing, part)
    return getattr(thing, "fget", None) or getattr(thing, "__func__", thing)


def keywords():
    """All keywords with a default, of all public functions: ``module.function`` and the name."""
    for module, path in public.MODULES.items():
        if hasattr(importlib.import_module(path), "__all__"):
            for name in public.functions(importlib.import_module(path)):
                for parameter in inspect.signature(function(module, name)).parameters.values():
                    if parameter.default is not parameter.empty:
                        yield f"{module}.{name}", parameter.name


ALL = [pair for pair in keywords() if pair[0] not in ONE_RESULT and ".".join(pair) not in ONE_RESULT]


def test_defaults_are_what_they_were(root):
    """Whoever calls a function without a keyword relies on its default: to change one is to change the contract."""
    stated = json.loads((root / "tests" / "defaults.json").read_text(encoding="utf-8"))
    found = {}
    for name, keyword in keywords():
        default = inspect.signature(function(*name.split(".", 1))).parameters[keyword].default
        found.setdefault(name, {})[keyword] = default.__name__ if callable(default) else repr(default)
    assert found == stated


def result(run, given):
    """What a call returns, as tensors on the CPU, words and shapes."""
    given = {
        name: seeded(value) if name == "generator" and value is not None else value() if value is second_axes else value
        for name, value in given.items()
    }
    random_state = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    returned = run(**given)
    now = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    if given.get("generator") is not None:
        assert torch.equal(random_state[0], now[0]), "it drew from PyTorch's global generator"
        assert (random_state[1] == now[1]).all(), "it drew from NumPy's global generator"
        assert random_state[2] == now[2], "it drew from Python's global generator"
    plt.close("all")
    return list(described(returned))


def described(thing):
    if isinstance(thing, torch.Tensor):
        yield f"{tuple(thing.shape)} {thing.dtype} {thing.device}", None if thing.is_meta else thing.detach().double()
    elif isinstance(thing, (list, tuple)):
        for part in thing:
            yield from described(part)
    elif isinstance(thing, (str, float, int, type(None))):
        yield repr(thing), None
    else:
        tensors = list(public.tensors_in(thing))
        assert tensors, f"nothing to compare in {thing!r}"
        yield from described(tensors)


def same(first, second):
    return len(first) == len(second) and all(
        a[0] == b[0] and (a[1] is None or torch.equal(torch.nan_to_num(a[1]), torch.nan_to_num(b[1])))
        for a, b in zip(first, second, strict=True)
    )


def test_every_public_keyword_is_here_or_has_a_reason():
    here = {(name, keyword) for name, call in CALLS.items() for keyword in call.other}
    assert [pair for pair in ALL if pair not in here] == []
    known = {name for name, _ in keywords()} | {".".join(pair) for pair in keywords()}
    assert [name for name in (*CALLS, *ONE_RESULT) if name.partition(",")[0] not in known] == []


def each(names, *, but=()):
    """A test for each keyword of these calls."""
    pairs = [(name, keyword) for name in names for keyword in CALLS[name].other if keyword not in but]
    return pytest.mark.parametrize(("name", "keyword"), pairs, ids=map(".".join, pairs))


@each(CALLS)
def test_another_value_of_a_keyword_gives_another_result(name, keyword):
    first, second = both(CALLS[name], keyword)
    assert not same(result(CALLS[name].run, first), result(CALLS[name].run, second))


def both(call, keyword):
    """Two lists of keywords that differ in one."""
    other = call.other[keyword]
    if not isinstance(other, Beside):
        return call.base, call.base | {keyword: other}
    base = call.base | other.others
    return base, base | {keyword: other.value}


DRAWING = [name for name, call in CALLS.items() if "generator" in call.other]


@pytest.mark.parametrize("name", DRAWING)
def test_the_same_seed_draws_the_same_whatever_was_drawn_elsewhere(name):
    call = CALLS[name]
    first = result(call.run, call.base)
    torch.rand(3), np.random.random(3), random.random()  # noqa: NPY002
    assert same(first, result(call.run, call.base))


@each(DRAWING, but=["generator"])
def test_no_keyword_makes_a_function_draw_from_elsewhere(name, keyword):
    _, given = both(CALLS[name], keyword)
    assert same(result(CALLS[name].run, given), result(CALLS[name].run, given))


WRAPPED = {
    "ScoreModel": lambda f, label: f(points(), 0.5, label=label),
    "given": lambda f, label: controllable_generation.given(f, label=label)(points(), 0.5),
    "at_noise_scale": lambda f, label: sde.at_noise_scale(f, VP)(points(), 0.7, label=label),
    "at_time": lambda f, label: sde.at_time(sde.at_noise_scale(f, VP), VE)(points(), 0.5, label=label),
    "on_grid": lambda f, label: sde.on_grid(controllable_generation.given(f, label=label), GRID)[1](points()),
}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_a_condition_reaches_the_network_through_every_wrapper(wrapper):
    first, second, none = (WRAPPED[wrapper](model(), label) for label in (LABELS, LABELS.flip(0), None))
    assert torch.equal(first[2], second[2])  # the one row whose label stays
    changed = LABELS.flip(0) != LABELS
    assert (first != second).any(1)[changed].all()
    assert (first != none).any(1).all()


# Defaults that a docstring states and no signature shows


def test_an_adaptive_solver_shows_fifty_steps_of_its_trajectory():
    path = probability_flow.sample(VP, half_as_steep, points(), method="dopri5", trajectory=True)
    assert len(path) == 51


@pytest.mark.parametrize("loss", ["score_matching_loss", "classifier_loss"])
def test_times_are_drawn_independently_unless_others_are_asked_for(loss):
    def call(**keywords):
        if loss == "score_matching_loss":
            return sde.score_matching_loss(half_as_steep, VP, points(), generator=seeded(), **keywords)
        return controllable_generation.classifier_loss(
            classifier(), VP, points(), LABELS, generator=seeded(), **keywords
        )

    stated = sde.time_sampler(VP, low_discrepancy=loss == "classifier_loss", t_min=1e-3)
    other = sde.time_sampler(VP, low_discrepancy=loss != "classifier_loss", t_min=1e-3)
    assert torch.equal(call(), call(sample_times=stated))
    assert not torch.equal(call(), call(sample_times=other))


@pytest.mark.parametrize(("n", "chains"), [(100, 4), (30, 1)])
def test_chains_that_swing_are_worth_their_states_times_a_logarithm_at_most(n, chains):
    swinging = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(n // 2)[:, None, None].expand(n, chains, 1)
    n_states = n * chains
    found = langevin.effective_sample_size(swinging + 1e-9 * torch.randn(n, chains, 1, generator=seeded()))
    assert found.item() == pytest.approx(n_states * np.log10(n_states))


# What is returned stays as it was returned

RECORDS = [
    pytest.param(getattr(importlib.import_module(path), name), id=f"{module}.{name}")
    for module, path in public.MODULES.items()
    for name in importlib.import_module(path).__all__
    if dataclasses.is_dataclass(getattr(importlib.import_module(path), name))
]


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_cannot_be_changed(record):
    empty = object.__new__(record)
    for part in dataclasses.fields(record):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(empty, part.name, 1.0)
