"""Divergence, sliced score matching and likelihood: seconds and memory against the dimension.

The fields are the same networks for all. Beside scorebook stand what one would write oneself, a loop over
``torch.autograd.grad`` or a transform of ``torch.func``, and torchdiffeq with the loop over the trace that its own
example of a continuous normalising flow has. Azula, smalldiffusion and diffusers compute no likelihood.

Memory is the greatest amount that PyTorch held in tensors during a call beyond what it held before, by the records of
its own allocator (``torch.profiler`` with ``profile_memory``).
"""

import torch
import torchdiffeq
from torch.func import functional_call, jacfwd, jacrev, jvp, vmap

from benchmarks.timing import interleaved
from scorebook import lab, probability_flow, score_matching, sde, sliced_score_matching

__all__ = ["measure", "peak_bytes"]

DIMENSIONS = (2, 8, 32, 64, 128, 256, 512)
BATCH = 64
STEPS = 4  # of the flow


def measure(repetitions: int) -> list[dict]:
    """Seconds and peak megabytes of each way to do each task, in each dimension."""
    rows = []
    for dimension in DIMENSIONS:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(BATCH, dimension, generator=generator)
        for task, make in TASKS.items():
            cases = make(x, generator)
            seconds = interleaved(cases, repetitions)
            megabytes = {case: peak_bytes(run) / 1e6 for case, run in cases.items()}
            rows += [
                {
                    "task": task,
                    "dimension": dimension,
                    "batch": BATCH,
                    "project": project,
                    "name": name,
                    "repetition": repetition,
                    "seconds": taken,
                    "peak_megabytes": megabytes[project, name],
                }
                for (project, name), times in seconds.items()
                for repetition, taken in enumerate(times)
            ]
    return rows


def divergences(x, generator):
    """The exact divergence of a network, as a number without gradients."""
    network = lab.MLP(x.shape[1], width=128, depth=2, generator=generator)

    def without_gradients(run):
        def call():
            with torch.no_grad():
                return run()

        return call

    return {
        ("scorebook", "divergence"): without_gradients(lambda: score_matching.divergence(network, x)),
        ("by hand", "loop over autograd.grad"): lambda: trace_by_loop(network, x)[1],
        ("torch.func", "jacrev"): without_gradients(lambda: trace_by_transform(jacrev, network, x)),
        ("torch.func", "jacfwd"): without_gradients(lambda: trace_by_transform(jacfwd, network, x)),
    }


def losses(x, generator):
    """A step of training by score matching without its noise: the loss and the gradient of every weight."""
    network = lab.MLP(x.shape[1], width=128, depth=2, generator=generator)
    weights = dict(network.named_parameters())

    def step(loss):
        def call():
            return torch.autograd.grad(loss(), list(weights.values()))

        return call

    def sliced_by_forward_mode():
        v = torch.randint(0, 2, x.shape, generator=generator) * 2.0 - 1
        value, product = jvp(lambda x: functional_call(network, weights, (x,)), (x,), (v,))
        return ((v * product).sum(1) + 0.5 * (value**2).sum(1)).mean()

    def exact_by_loop():
        value, trace = trace_by_loop(network, x, create_graph=True)
        return (trace + 0.5 * (value**2).sum(1)).mean()

    return {
        ("scorebook", "sliced loss"): step(
            lambda: sliced_score_matching.sliced_score_matching_loss(network, x, generator=generator)
        ),
        ("scorebook", "exact loss"): step(lambda: score_matching.implicit_score_matching_loss(network, x)),
        ("torch.func", "sliced loss, jvp"): step(sliced_by_forward_mode),
        ("by hand", "exact loss, loop"): step(exact_by_loop),
    }


def likelihoods(x, generator):
    """The log-likelihood under the probability flow, in a few fixed steps of Euler's method."""
    vp = sde.VPSDE()
    model = sde.ScoreModel(lab.TimeMLP(x.shape[1], width=128, depth=2, generator=generator), vp)
    velocity = probability_flow.velocity(vp, model)

    def ours(divergence):
        return lambda: probability_flow.log_prob(
            vp, model, x, method="euler", n_steps=STEPS, divergence=divergence, generator=generator
        )

    def by_torchdiffeq():
        def joint(t, state):
            value, trace = trace_by_loop(lambda x: velocity(t, x), state[0])
            return value.detach(), trace

        times = torch.linspace(1e-3, 1, STEPS + 1)
        end, gained = torchdiffeq.odeint(joint, (x, torch.zeros(len(x))), times, method="euler")
        return vp.prior_log_prob(end[-1]) + gained[-1]

    return {
        ("scorebook", "log_prob, exact"): ours("exact"),
        ("scorebook", "log_prob, hutchinson"): ours("hutchinson"),
        ("torchdiffeq", "odeint, loop over the trace"): by_torchdiffeq,
    }


TASKS = {"divergence": divergences, "training step": losses, "likelihood": likelihoods}


def trace_by_loop(field, x, *, create_graph=False):
    """The field and its divergence, one backward pass after the other."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        value = field(x)
        trace = 0.0
        for i in range(x.shape[1]):
            row = torch.autograd.grad(value[:, i].sum(), x, create_graph=create_graph, retain_graph=True)[0]
            trace = trace + row[:, i]
    return value, trace


def trace_by_transform(transform, field, x):
    """The divergence as the trace of the whole Jacobian of each row."""
    jacobians = vmap(transform(lambda row: field(row.unsqueeze(0)).squeeze(0)))(x)
    return jacobians.diagonal(dim1=1, dim2=2).sum(1)


def peak_bytes(run) -> int:
    """The most that tensors took up during a call, beyond what they took up before it."""
    with torch.autograd.profiler.profile(profile_memory=True) as profiler:
        run()
    records = [event for event in profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for record in sorted(records, key=lambda record: record.start_ns()):
        held += record.nbytes()
        peak = max(peak, held)
    return peak
