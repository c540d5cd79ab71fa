"""One result of each thing that is drawn, trained or sampled, from a seed: ``python same_result.py FILE N_THREADS``.

The sizes are those of the chapters, so that PyTorch has work to share among its threads. The file holds the results;
the same from the same draws in double precision, where a third argument asks for them; and whether the global
generators of PyTorch and NumPy were left alone.
"""

import sys
from unittest import mock

import numpy as np
import torch

from scorebook import (
    controllable_generation,
    langevin,
    monte_carlo,
    noise_scales,
    probability_flow,
    sde,
    sliced_score_matching,
)
from scorebook.lab import datasets, fit, metrics
from scorebook.lab.arguments import expand
from scorebook.lab.distributions import GaussianMixture
from scorebook.lab.networks import MLP, TimeMLP, UNet
from scorebook.lab.shipped import pretrained

VP, VE = sde.VPSDE(), sde.VESDE()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def mixture():
    return GaussianMixture(torch.tensor([0.2, 0.3, 0.5]), 2 * torch.randn(3, 2, generator=seeded(1)), torch.ones(3) / 4)


def converted(make):
    """A network whose weights are drawn in single precision, in the precision that is asked for."""
    asked = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    network = make()
    torch.set_default_dtype(asked)
    return network.to(asked)


def start(n=4096):
    return torch.randn(n, 2, generator=seeded(2))


def images(n=64):
    return torch.randn(n, 1, 8, 8, generator=seeded(2))


def digit_score():
    network, card = pretrained("digits")
    return sde.ScoreModel(network.to(torch.get_default_dtype()), VP, data_std=card["data_std"])


def trained(model, data, loss):
    """The averaged weights and the losses of a short run."""
    history = fit(model, loss, data, n_steps=12, generator=seeded(3), progress=False)
    return torch.cat([history.loss, *(parameter.detach().flatten() for parameter in model.parameters())])


def denoising(model, x, *, generator):
    t = torch.rand(len(x), generator=generator)
    z = torch.randn(x.shape, generator=generator)
    noised = expand(VP.alpha(t), x) * x + expand(VP.sigma(t), x) * z
    return (model(noised, t) - z).square().mean()


def sliced(model, x, *, generator):
    return sliced_score_matching.sliced_score_matching_loss(model, x, kind="gaussian", generator=generator)


def posterior(guide):
    """Digits of which two rows are seen."""
    rows = torch.zeros(2, 8, 64)
    rows[0, :, 16:24], rows[1, :, 40:48] = torch.eye(8), torch.eye(8)
    seen = controllable_generation.LinearObservation(rows.reshape(16, 64), torch.zeros(16, 16), 0.1)
    score = digit_score()
    guided = guide(lambda x, t: score(x.reshape(-1, 1, 8, 8), t).reshape(-1, 64), VP, seen)
    return sde.euler_maruyama(VP, guided, images(16).reshape(16, 64), n_steps=4, generator=seeded())


def inpainted():
    mask = torch.arange(64).reshape(1, 8, 8) < 32
    constraint = controllable_generation.replace_known(VP, torch.zeros(1, 8, 8), mask, generator=seeded(4))
    return sde.euler_maruyama(VP, digit_score(), images(), n_steps=8, constraint=constraint, generator=seeded())


CASES = {
    # data
    "moons": lambda: datasets.moons(4096, generator=seeded()),
    "swiss_roll": lambda: datasets.swiss_roll(4096, generator=seeded()),
    "checkerboard": lambda: datasets.checkerboard(4096, generator=seeded()),
    "digits": lambda: datasets.digits()[0],
    "coloured_digits": lambda: datasets.coloured_digits()[0],
    "GaussianMixture.sample": lambda: mixture().sample(4096, generator=seeded()),
    "GaussianMixture.log_prob": lambda: mixture().log_prob(start()),
    "GaussianMixture.score": lambda: mixture().score(start()),
    # metrics
    "sliced_wasserstein": lambda: metrics.sliced_wasserstein(
        start(), mixture().sample(4096, generator=seeded()), generator=seeded()
    ),
    "energy_distance": lambda: metrics.energy_distance(start(2000), mixture().sample(2000, generator=seeded())),
    "mode_weights": lambda: metrics.mode_weights(start(), torch.eye(2)),
    "expectation": lambda: monte_carlo.expectation(lambda x: x.square(), start(100_000)).mean,
    # networks and their training
    "MLP": lambda: converted(lambda: MLP(2, generator=seeded()))(start()),
    "pretrained digits": lambda: digit_score()(images(256), torch.tensor(0.3)),
    "pretrained digits_classifier": lambda: converted(lambda: pretrained("digits_classifier")[0])(
        images(256), torch.tensor(0.3)
    ),
    "fit TimeMLP": lambda: trained(converted(lambda: TimeMLP(2, generator=seeded())), start(), denoising),
    "fit UNet": lambda: trained(converted(lambda: UNet(1, width=16, generator=seeded())), images(), denoising),
    "fit MLP, sliced": lambda: trained(converted(lambda: MLP(2, generator=seeded())), start(), sliced),
    # samplers
    "langevin": lambda: langevin.langevin(mixture().score, start(), step_size=0.05, n_steps=50, generator=seeded()),
    "metropolis_adjusted_langevin": lambda: langevin.metropolis_adjusted_langevin(
        mixture().log_prob, start(), step_size=0.05, n_steps=20, generator=seeded()
    )[0],
    "annealed_langevin": lambda: noise_scales.annealed_langevin(
        lambda x, sigma: mixture().diffuse(1.0, sigma).score(x),
        4 * start(),
        [4.0, 2.0, 1.0, 0.5],
        step_size=0.02,
        n_steps_each=10,
        generator=seeded(),
    ),
    "simulate": lambda: sde.simulate(
        VP.drift, lambda x, t: VP.diffusion(t), start(), torch.linspace(0, 1, 50), generator=seeded()
    ),
    "euler_maruyama, mixture": lambda: sde.euler_maruyama(
        VP, VP.exact_score(mixture()), start(), n_steps=50, generator=seeded()
    ),
    "euler_maruyama, digits": lambda: sde.euler_maruyama(VP, digit_score(), images(), n_steps=8, generator=seeded()),
    "predictor_corrector, mixture": lambda: sde.predictor_corrector(
        VP, VP.exact_score(mixture()), start(), n_steps=25, generator=seeded()
    ),
    "predictor_corrector, digits": lambda: sde.predictor_corrector(
        VP, digit_score(), images(), n_steps=4, generator=seeded()
    ),
    "probability_flow.sample, mixture": lambda: probability_flow.sample(VP, VP.exact_score(mixture()), start()),
    "probability_flow.sample, digits": lambda: probability_flow.sample(
        VP, digit_score(), images(), method="heun2", n_steps=6
    ),
    "probability_flow.encode": lambda: probability_flow.encode(VP, VP.exact_score(mixture()), start()),
    "log_prob, exact": lambda: probability_flow.log_prob(
        VP, VP.exact_score(mixture()), start(), method="heun2", n_steps=20
    ),
    "log_prob, hutchinson, digits": lambda: probability_flow.log_prob(
        VP, digit_score(), images(), divergence="hutchinson", method="heun2", n_steps=4, generator=seeded()
    ),
    "replace_known": inpainted,
    "diffusion_posterior": lambda: posterior(controllable_generation.diffusion_posterior),
    "pseudoinverse_guidance": lambda: posterior(controllable_generation.pseudoinverse_guidance),
}


def global_states():
    return [torch.get_rng_state(), torch.from_numpy(np.random.get_state()[1].copy())]  # noqa: NPY002


def results():
    return {name: torch.as_tensor(case()).detach() for name, case in CASES.items()}


def exact_results():
    """The results in double precision, of numbers that are drawn in single precision."""

    def in_single_precision(draw):
        return lambda *shape, dtype=None, **options: draw(*shape, dtype=torch.float32, **options).double()

    with mock.patch.multiple(torch, rand=in_single_precision(torch.rand), randn=in_single_precision(torch.randn)):
        torch.set_default_dtype(torch.float64)
        return results()


def main(file, n_threads, exact=""):
    torch.set_num_threads(int(n_threads))
    before = global_states()
    found = {"results": results()}
    found["global left alone"] = all(map(torch.equal, before, global_states()))
    if exact:
        found["exact"] = exact_results()
    torch.save(found, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
