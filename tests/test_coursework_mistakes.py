"""The mistakes that the book runs on its page of mistakes are handed to the checks, which refuse each and name it.

Where the page has the wrong code as a function, it is taken from the page; where the wrong line stands in a loop, it is
put here into the form in which a student would hand it in.
"""

import ast
import math
from pathlib import Path

import graded
import nbformat
import pytest
import torch
from torchdiffeq import odeint

from scorebook import controllable_generation, coursework, lab, noise_scales, probability_flow, sde
from scorebook.sliced_score_matching import random_projections, sliced_divergence

PAGE = Path(__file__).resolve().parent.parent / "book" / "mistakes.ipynb"
DOUBLE = torch.float64


def functions_of_the_page(**names):
    """All functions that the page defines, seeing ``names`` in place of the page's own values."""
    space = {
        "torch": torch,
        "math": math,
        "sde": sde,
        "probability_flow": probability_flow,
        "controllable_generation": controllable_generation,
        **names,
    }
    for cell in nbformat.read(PAGE, 4).cells:
        if cell.cell_type == "code" and "%pip" not in cell.source:
            body = [node for node in ast.parse(cell.source).body if isinstance(node, ast.FunctionDef)]
            exec(compile(ast.Module(body, []), str(PAGE), "exec"), space)
    return space


def looked_for():
    """The column of the page's last table that says what to look for."""
    (cell,) = (c for c in nbformat.read(PAGE, 4).cells if c.cell_type == "code" and '"look for"' in c.source)
    table = ast.parse(cell.source).body[0].value.args[0]
    (column,) = (v for k, v in zip(table.keys, table.values, strict=True) if k.value == "look for")
    return ast.literal_eval(column)


def step_of_the_page(name):
    def student(process, score, x, t, dt, *, generator):
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        u = torch.rand(x.shape, generator=generator, dtype=x.dtype)
        return functions_of_the_page(vp=process, score=score)[name](x, t, dt, z, u)

    return lambda seed: coursework.check_reverse_step(student, seed=seed)


def langevin(kick, draw=torch.randn):
    def student(score, x, *, step_size, n_steps, generator):
        for _ in range(n_steps):
            x = x + step_size * score(x) + kick(step_size) * draw(x.shape, generator=generator, dtype=x.dtype)
        return x

    return lambda seed: coursework.check_langevin(student, seed=seed)


def norm_over_the_batch(score, x, *, step_size, n_steps, generator):
    corrector = functions_of_the_page(score=lambda x, t: score(x), vp=sde.VPSDE())["corrector"]
    for _ in range(n_steps):
        x = corrector(x, None, torch.randn(x.shape, generator=generator, dtype=x.dtype), True)
    return x


def whole_flow(process, score):
    return lambda t, x: process.drift(x, t) - process.diffusion(t) ** 2 * score(x, t)


def score_at_sigma(process, score):
    return lambda t, x: process.drift(x, t) - 0.5 * process.diffusion(t) ** 2 * score(x, process.sigma(t).clamp(max=1))


def without_the_last_step(score, x, sigmas, **options):
    return noise_scales.annealed_langevin(score, x, sigmas, denoise=False, **options)


def column_meets_row(model, x, sigma, *, generator):
    c = sigma[:, None]
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    answers = c * model(x + c * z, sigma)
    return 0.5 * sum((a[:, None] + b).square().mean() for a, b in zip(answers.mT, z.mT, strict=True))


def unit_vectors(model, x, *, generator):
    v = random_projections(x, 1, kind="sphere", generator=generator)[0] / math.sqrt(x.shape[1])
    x = x.clone().requires_grad_()
    return (sliced_divergence(model, x, v) + 0.5 * model(x).square().sum(1)).mean()


FLOW = {"rtol": 1e-3, "atol": 1e-3}


def sign_of_the_trace(process, score, x):
    code = probability_flow.encode(process, score, x, **FLOW)
    return 2 * process.prior_log_prob(code) - probability_flow.log_prob(process, score, x, **FLOW)


def fresh_probes(process, score, x, generator):
    velocity = probability_flow.velocity(process, score)

    def joint(t, state):
        probe = random_projections(x, 1, generator=generator)[0]
        y = state[0].detach().requires_grad_()
        with torch.enable_grad():
            trace = sliced_divergence(lambda y: velocity(t, y), y, probe)
        return velocity(t, state[0]).detach(), trace.detach()

    times = torch.tensor([1e-3, 1.0], dtype=x.dtype)
    options = {"step_t": times[-1:], "first_step": 1e-3}
    end, total = odeint(joint, (x, x.new_zeros(len(x))), times, rtol=1e-4, atol=1e-4, options=options)
    return process.prior_log_prob(end[-1]) + total[-1]


def bits_without_the_width(process, score, x, bin_width):
    return -probability_flow.log_prob(process, score, x, **FLOW) / (x[0].numel() * math.log(2))


def clean_likelihood(seed):
    process = sde.VPSDE()
    prior = lab.GaussianMixture(
        [0.3, 0.5, 0.2],
        torch.tensor([[-1.2, -0.4], [0.9, 0.8], [0.6, -1.2]], dtype=DOUBLE),
        torch.tensor([0.02, 0.05, 0.01], dtype=DOUBLE),
    )
    page = functions_of_the_page(y=-0.3, tau=0.5)
    guided = controllable_generation.condition(process.exact_score(prior), page["clean_likelihood"])
    seen = controllable_generation.LinearObservation(
        torch.tensor([[0.0, 1.0]], dtype=DOUBLE), torch.tensor([-0.3], dtype=DOUBLE), 0.5
    )
    return coursework.check_guidance(guided, seen, prior=prior, sde=process, seed=seed)


# What the page says to look for: the check that finds it, and by which name.
HANDED_IN = {
    "dt for √dt": [(step_of_the_page("step_dt"), "dt_for_root")],
    "the sign of dt": [(step_of_the_page("step_sign"), "time_direction")],
    "rand for randn": [
        (step_of_the_page("step_rand"), "uniform_noise"),
        (langevin(lambda e: math.sqrt(2 * e), torch.rand), "uniform_noise"),
    ],
    "g² for ½ g² in the flow": [
        (step_of_the_page("step_whole"), "no_noise"),
        (step_of_the_page("step_half"), "half_score"),
        (lambda seed: coursework.check_probability_flow(whole_flow, seed=seed), "half"),
    ],
    "√ε for √2ε": [(langevin(math.sqrt), "epsilon_for_two_epsilon")],
    "σ where t is expected": [
        (lambda seed: coursework.check_probability_flow(score_at_sigma, seed=seed), "noise_scale")
    ],
    "no denoising at the end": [
        (lambda seed: coursework.check_annealed(without_the_last_step, seed=seed), "no_denoising")
    ],
    "(B, 1) − (B,)": [(lambda seed: coursework.check_loss(column_meets_row, "denoising", seed=seed), "crossed")],
    "unit vectors without d": [
        (lambda seed: coursework.check_loss(unit_vectors, "sliced", seed=seed), "unit_projections")
    ],
    "one norm over the batch": [(lambda seed: coursework.check_langevin(norm_over_the_batch, seed=seed), "coupled")],
    "the sign of the trace": [
        (lambda seed: coursework.check_log_prob(sign_of_the_trace, seed=seed), "divergence_sign")
    ],
    "fresh probes at every call": [(lambda seed: coursework.check_log_prob(fresh_probes, seed=seed), "fresh_probe")],
    "log Δ missing": [
        (lambda seed: coursework.check_log_prob(bits_without_the_width, bin_width=0.125, seed=seed), "bin_width")
    ],
    "the clean likelihood": [(clean_likelihood, "clean_likelihood")],
}
NO_FUNCTION = {"the last weights, or no eval()"}  # which weights a network holds shows in no function of a student


def test_every_mistake_of_the_page_is_handed_in():
    assert set(looked_for()) == set(HANDED_IN) | NO_FUNCTION


@pytest.mark.parametrize(
    ("check", "mistake"),
    [pytest.param(*one, id=f"{name}-{k}") for name, several in HANDED_IN.items() for k, one in enumerate(several)],
)
def test_it_is_refused_and_named(check, mistake):
    graded.is_named(check, mistake)
