"""Estimates, Metropolis adjustment and sliced losses on which their checks were mended."""

import math

import numpy as np
import torch

from catalogue import Catalogue, normal
from scorebook import monte_carlo, sliced_score_matching

catalogue = Catalogue()
right = wrong = catalogue.add  # a right answer has no mistakes


# Means with a standard error.


def mean_of(centre=lambda v: v.mean(0), spread=lambda v: v.std(0), over=lambda v: len(v) ** 0.5):
    """Student's mean of each column and its standard error."""
    return lambda values: (centre(values), spread(values) / over(values))


def from_a_list(values):
    """In plain Python, a column at a time."""
    columns = values.T.tolist()
    means = [sum(column) / len(column) for column in columns]
    squares = [sum((v - m) ** 2 for v in c) for c, m in zip(columns, means, strict=True)]
    n = len(values)
    return means, [math.sqrt(s / (n - 1) / n) for s in squares]


right("mean estimate", "std_over_root", mean_of())
right("mean estimate", "plain_python", from_a_list)
right("mean estimate", "single_precision", lambda v: mean_of()(v.float()))
right(
    "mean estimate",
    "population_over_root_of_n_minus_1",
    mean_of(spread=lambda v: v.std(0, correction=0), over=lambda v: (len(v) - 1) ** 0.5),
)
right("mean estimate", "covariance", lambda v: (v.mean(0), (torch.cov(v.T).diagonal() / len(v)).sqrt()))
right("mean estimate", "an_estimate", lambda v: monte_carlo.expectation(lambda x: x, v))
for name, key, parts in (
    ("no_division", "std_for_error", {"over": lambda v: 1.0}),
    ("population", "population", {"spread": lambda v: v.std(0, correction=0)}),
    ("by_n", "no_root", {"over": len}),
    ("times_root", "no_root", {"over": lambda v: len(v) ** -0.5}),
    ("root_of_n_minus_1", "wrong_n", {"over": lambda v: (len(v) - 1) ** 0.5}),
    ("root_of_all_entries", "wrong_n", {"over": lambda v: v.numel() ** 0.5}),
    ("variance_by_root", "variance_for_std", {"spread": lambda v: v.var(0)}),
    ("squared_error", "variance_for_std", {"spread": lambda v: v.var(0), "over": len}),
    ("interval", "interval", {"spread": lambda v: 1.96 * v.std(0)}),
    ("mean_absolute", "absolute", {"spread": lambda v: (v - v.mean(0)).abs().mean(0)}),
    ("sum", "sum", {"centre": lambda v: v.sum(0)}),
    ("median", "median", {"centre": lambda v: v.quantile(0.5, 0)}),
    ("one_mean_for_all", "pooled", {"centre": lambda v: v.mean().expand(v.shape[1])}),
    ("one_spread_for_all", "pooled", {"spread": lambda v: v.std(correction=0).expand(v.shape[1])}),
    ("raw_moment", "uncentred", {"spread": lambda v: v.square().mean(0).sqrt()}),
    ("by_n_minus_1", "wrong_divisor", {"centre": lambda v: v.sum(0) / (len(v) - 1)}),
):
    wrong("mean estimate", name, mean_of(**parts), key)
wrong("mean estimate", "rows_for_columns", lambda v: (v.mean(1), v.std(1)), "shape")
wrong("mean estimate", "mean_alone", lambda v: v.mean(0), "type")
wrong(
    "mean estimate",
    "population_no_division",
    mean_of(spread=lambda v: v.std(0, correction=0), over=lambda v: 1.0),
    "population",
    "std_for_error",
)
wrong(
    "mean estimate",
    "median_and_population",
    mean_of(lambda v: v.median(0).values, lambda v: v.std(0, correction=0)),
    "median",
    "population",
)


def mirrored_pairs(draw=torch.randn, mirror=lambda z: -z, join=lambda a, b: (a + b) / 2, error=None, seed=None):
    """Student's antithetic estimate."""

    def estimate(f, n_pairs, *, generator):
        generator = generator if seed is None else torch.Generator().manual_seed(seed)
        z = draw(n_pairs, generator=generator, dtype=torch.float64)
        a, b = f(z), f(mirror(z))
        terms = join(a, b)
        return terms.mean(), terms.std() / n_pairs**0.5 if error is None else error(a, b, n_pairs)

    return estimate


def pairs_mapped(f, n_pairs, *, generator):
    """The function mapped over the pairs."""
    z = torch.randn(n_pairs, generator=generator, dtype=torch.float64)
    terms = torch.stack([0.5 * (f(v) + f(-v)) for v in z])
    return float(terms.mean()), float(terms.std(unbiased=True)) / math.sqrt(n_pairs)


def twice_as_many(f, n_pairs, *, generator):
    """Independent draws, as many as the pairs have points."""
    z = torch.randn(2 * n_pairs, generator=generator, dtype=torch.float64)
    return f(z).mean(), f(z).std() / (2 * n_pairs) ** 0.5


right("antithetic estimate", "pairs", mirrored_pairs())
right("antithetic estimate", "one_by_one", pairs_mapped)
right(
    "antithetic estimate",
    "a_grid_of_two_columns",
    lambda f, n_pairs, *, generator: monte_carlo.expectation(
        lambda z: f(torch.stack([z, -z], 1)).mean(1), torch.randn(n_pairs, generator=generator, dtype=torch.float64)
    ),
)
wrong("antithetic estimate", "independent_draws", twice_as_many, "not_mirrored")
wrong(
    "antithetic estimate",
    "half_the_pairs",
    lambda f, n_pairs, *, generator: mirrored_pairs()(f, n_pairs // 2, generator=generator),
    "wrong_n",
)
for name, key, parts in (
    ("rand", "uniform_noise", {"draw": torch.rand}),
    ("one_minus_z", "not_mirrored", {"mirror": lambda z: 1 - z}),
    ("as_if_independent", "independent_pairs", {"error": lambda a, b, n: torch.cat([a, b]).std() / (2 * n) ** 0.5}),
    ("single_spread_by_pairs", "independent_pairs", {"error": lambda a, b, n: torch.cat([a, b]).std() / n**0.5}),
    ("points_under_the_root", "wrong_n", {"error": lambda a, b, n: ((a + b) / 2).std() / (2 * n) ** 0.5}),
    ("added", "not_halved", {"join": lambda a, b: a + b}),
    ("subtracted", "difference", {"join": lambda a, b: (a - b) / 2}),
    ("one_side", "one_side", {"join": lambda a, b: a}),
    ("own_seed", "fixed_seed", {"seed": 5}),
    ("no_division", "std_for_error", {"error": lambda a, b, n: ((a + b) / 2).std()}),
    ("population", "population", {"error": lambda a, b, n: ((a + b) / 2).std(correction=0) / n**0.5}),
):
    wrong("antithetic estimate", name, mirrored_pairs(**parts), key)
wrong(
    "antithetic estimate",
    "added_and_independent",
    mirrored_pairs(join=lambda a, b: a + b, error=lambda a, b, n: torch.cat([a, b]).std() / (2 * n) ** 0.5),
    "not_halved",
    "independent_pairs",
)


# Weights.


def weighted(weigh=torch.exp, mean=lambda w, f: (w * f).mean(), error=lambda w, f, m: (w * f).std() / len(f) ** 0.5):
    """Student's weighted estimate."""

    def estimate(values, log_weights):
        w = weigh(log_weights)
        m = mean(w, values)
        return m, error(w, values, m)

    return estimate


def delta(w, f, m):
    return (w.square() * (f - m).square()).sum().sqrt()


def softmax(log_w):
    return log_w.softmax(0)


def sum_of(w, f):
    return (w * f).sum()


right("importance estimate", "mean_of_products", weighted())
right("importance estimate", "an_estimate", lambda f, log_w: monte_carlo.expectation(lambda t: t, f * log_w.exp()))
for name, key, parts in (
    ("shares", "normalised", {"weigh": softmax, "mean": sum_of, "error": delta}),
    ("shares_then_mean", "normalised", {"weigh": softmax}),
    ("mean_by_shares", "normalised", {"mean": lambda w, f: (w * f).sum() / w.sum()}),
    ("inverse", "inverse_weights", {"weigh": lambda w: (-w).exp()}),
    ("logarithms", "log_weights", {"weigh": lambda w: w}),
    ("no_weights", "no_weights", {"weigh": torch.ones_like}),
    ("bare_error", "unweighted_error", {"error": lambda w, f, m: f.std() / len(f) ** 0.5}),
    ("by_ess", "error_by_ess", {"error": lambda w, f, m: f.std() * w.square().sum().sqrt() / w.sum()}),
    ("population", "population", {"error": lambda w, f, m: (w * f).std(correction=0) / len(f) ** 0.5}),
    ("sum", "sum", {"mean": sum_of}),
    ("no_division", "std_for_error", {"error": lambda w, f, m: (w * f).std()}),
    ("squares_alone", "uncentred", {"error": lambda w, f, m: ((w * f).square().mean() / len(f)).sqrt()}),
):
    wrong("importance estimate", name, weighted(**parts), key)
wrong(
    "importance estimate",
    "inverse_and_no_division",
    weighted(lambda w: (-w).exp(), error=lambda w, f, m: (w * f).std()),
    "inverse_weights",
    "std_for_error",
)

right("self-normalised estimate", "softmax", weighted(softmax, sum_of, delta))
right(
    "self-normalised estimate",
    "einsum",
    weighted(
        lambda w: torch.nn.functional.normalize((w - w.max()).exp(), p=1, dim=0),
        torch.dot,
        lambda w, f, m: torch.einsum("i,i->", w**2, (f - m) ** 2) ** 0.5,
    ),
)
for name, key, parts in (
    ("in_linear_space", "underflow", {"weigh": lambda w: w.exp() / w.exp().sum()}),
    ("guarded_sum", "underflow", {"weigh": lambda w: w.exp() / w.exp().sum().clamp(min=1e-300)}),
    ("plain_error", "plain_error", {"error": lambda w, f, m: (len(f) * w * f).std() / len(f) ** 0.5}),
    ("spread_of_shares", "plain_error", {"error": lambda w, f, m: (w * f).std() / len(f) ** 0.5}),
    (
        "not_normalised",
        "not_normalised",
        {
            "weigh": torch.exp,
            "mean": lambda w, f: (w * f).mean(),
            "error": lambda w, f, m: (w * f).std() / len(f) ** 0.5,
        },
    ),
    ("by_ess", "error_by_ess", {"error": lambda w, f, m: ((w * (f - m) ** 2).sum() * w.square().sum()).sqrt()}),
    ("unsquared", "unsquared_weights", {"error": lambda w, f, m: (w * (f - m) ** 2).sum().sqrt()}),
    ("root_n_more", "wrong_n", {"error": lambda w, f, m: delta(w, f, m) / len(f) ** 0.5}),
    ("squared_error", "variance_for_std", {"error": lambda w, f, m: delta(w, f, m) ** 2}),
    ("around_zero", "uncentred", {"error": lambda w, f, m: (w.square() * f.square()).sum().sqrt()}),
    ("around_the_plain_mean", "unweighted_centre", {"error": lambda w, f, m: delta(w, f, f.mean())}),
    ("bare_error", "unweighted_error", {"error": lambda w, f, m: f.std() / len(f) ** 0.5}),
    ("inverse", "inverse_weights", {"weigh": lambda w: (-w).softmax(0)}),
    ("interval", "interval", {"error": lambda w, f, m: 1.96 * delta(w, f, m)}),
):
    wrong(
        "self-normalised estimate", name, weighted(**{"weigh": softmax, "mean": sum_of, "error": delta, **parts}), key
    )
wrong(
    "self-normalised estimate",
    "inverse_and_unsquared",
    weighted(lambda w: (-w).softmax(0), sum_of, lambda w, f, m: (w * (f - m) ** 2).sum().sqrt()),
    "inverse_weights",
    "unsquared_weights",
)

right("effective draws", "two_sums", lambda w: (w - w.max()).exp().sum() ** 2 / (2 * (w - w.max())).exp().sum())
right("effective draws", "of_the_book", monte_carlo.effective_draws)
right("effective draws", "numpy_float", lambda w: 1 / np.square(np.asarray(w.softmax(0))).sum())
for name, key, of in (
    ("unsquared_sum", "no_square", lambda w: w.exp().sum() / w.exp().square().sum()),
    ("no_sum", "no_square", lambda w: 1 / w.exp().square().sum()),
    ("greatest", "greatest", lambda w: 1 / w.softmax(0).max()),
    ("entropy", "entropy", lambda w: torch.distributions.Categorical(logits=w).entropy().exp()),
    ("inverse", "inverse", lambda w: w.softmax(0).square().sum()),
    ("sums_exchanged", "inverse", lambda w: w.exp().square().sum() / w.exp().sum() ** 2),
    ("share", "share", lambda w: 1 / w.softmax(0).square().mean() / len(w) ** 2),
    ("logarithm", "logarithm", lambda w: 2 * w.logsumexp(0) - (2 * w).logsumexp(0)),
    ("of_logarithms", "log_weights", lambda w: w.sum() ** 2 / w.square().sum()),
    ("sample_variance", "population", lambda w: len(w) / (1 + w.softmax(0).var() / w.softmax(0).mean() ** 2)),
    ("linear_space", "underflow", lambda w: w.exp().sum() ** 2 / w.exp().square().sum()),
    ("all", "no_weights", lambda w: float(len(w))),
    ("root", "root", lambda w: 1 / w.softmax(0).norm()),
):
    wrong("effective draws", name, of, key)


# Metropolis adjustment.


def value_and_score(log_prob, x):
    x = x.detach().clone().requires_grad_()
    value = log_prob(x)
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


def adjusted(
    *,
    drift=lambda e: e,
    kick=lambda e: (2 * e) ** 0.5,
    width=lambda e: 4 * e,
    noise=normal,
    u=lambda n, g: torch.rand(n, generator=g, dtype=torch.float64),
    log_ratio=lambda dp, dq: dp + dq,
    take=lambda u, log_a: u.log() < log_a,
    back=lambda s, s_y: s_y,
    squared=lambda v: v.square().sum(1),
    renew="psx",
    once="",
    rate=lambda count, n: count / n,
):
    """Student's Metropolis-adjusted Langevin sampler, with the place of each slip as an argument."""

    def sampler(log_prob, x, *, step_size, n_steps, generator):
        e = step_size
        p, s = value_and_score(log_prob, x)
        count = torch.zeros(len(x), dtype=x.dtype)
        z = v = None
        for _ in range(n_steps):
            z = noise(x, generator) if z is None or "z" not in once else z
            v = u(len(x), generator) if v is None or "u" not in once else v
            y = x + drift(e) * s + kick(e) * z
            p_y, s_y = value_and_score(log_prob, y)
            forward, backward = y - x - e * s, x - y - e * back(s, s_y)
            taken = take(v, log_ratio(p_y - p, (squared(forward) - squared(backward)) / width(e)))
            count = count + taken
            rows = taken[:, None]
            x = torch.where(rows, y, x)
            p = torch.where(taken, p_y, p) if "p" in renew else p
            s = torch.where(rows, s_y, s) if "s" in renew else s_y if "y" in renew else s
        return x, rate(count, n_steps)

    return sampler


def in_pieces(log_prob, x, *, step_size, n_steps, generator):
    """The chains in pieces, the rate as one number."""
    parts = [
        adjusted()(log_prob, part, step_size=step_size, n_steps=n_steps, generator=generator) for part in x.split(3000)
    ]
    return torch.cat([states for states, _ in parts]), float(torch.cat([rates for _, rates in parts]).mean())


def of_global_seed(log_prob, x, *, step_size, n_steps):
    """Without a generator, in NumPy where it can be."""
    draw = np.random.default_rng(torch.randint(2**31, ()).item())
    return adjusted(
        noise=lambda x, g: torch.from_numpy(draw.standard_normal(tuple(x.shape))),
        u=lambda n, g: torch.from_numpy(draw.random(n)),
    )(log_prob, x, step_size=step_size, n_steps=n_steps, generator=None)


right("metropolis", "all_right", adjusted())
right("metropolis", "in_pieces", in_pieces)
right("metropolis", "of_global_seed", of_global_seed)
right("metropolis", "exponential_clock", adjusted(take=lambda u, log_a: -torch.log1p(-u) > -log_a))
right("metropolis", "minimum_of_one", adjusted(take=lambda u, log_a: u < log_a.exp().clamp(max=1.0)))
for name, key, parts in (
    ("no_proposal_ratio", "no_proposal_ratio", {"log_ratio": lambda dp, dq: dp}),
    ("proposals_upside_down", "inverted_proposal_ratio", {"log_ratio": lambda dp, dq: dp - dq}),
    ("all_upside_down", "inverted_ratio", {"log_ratio": lambda dp, dq: -dp - dq}),
    ("densities_upside_down", "inverted_target", {"log_ratio": lambda dp, dq: dq - dp}),
    ("no_densities", "no_target", {"log_ratio": lambda dp, dq: dq}),
    ("drift_at_x_alone", "one_drift", {"back": lambda s, s_y: s}),
    ("no_log", "no_log", {"take": lambda u, a: u < a}),
    ("all_taken", "always_accepted", {"take": lambda u, a: u >= 0}),
    ("none_taken", "never_accepted", {"take": lambda u, a: u > 1}),
    ("exchanged", "swapped", {"take": lambda u, a: u.log() > a}),
    ("greedy", "greedy", {"take": lambda u, a: a > 0}),
    ("barker", "barker", {"take": lambda u, a: u < torch.sigmoid(a)}),
    ("width_of_epsilon", "proposal_variance", {"width": lambda e: 2 * e}),
    ("width_of_squares", "proposal_variance", {"width": lambda e: 2 * (2 * e) ** 2}),
    ("width_of_std", "proposal_variance", {"width": lambda e: 2 * (2 * e) ** 0.5}),
    ("norm", "norm", {"squared": lambda v: v.norm(dim=1)}),
    ("narrow_kick", "epsilon_for_two_epsilon", {"kick": lambda e: e**0.5}),
    ("kick_without_root", "no_root", {"kick": lambda e: 2 * e}),
    ("no_kick", "no_noise", {"kick": lambda e: 0.0}),
    ("no_drift", "no_drift", {"drift": lambda e: 0.0}),
    ("downhill", "drift_sign", {"drift": lambda e: -e}),
    ("half_drift", "half_drift", {"drift": lambda e: e / 2}),
    ("rand", "uniform_noise", {"noise": lambda x, g: torch.rand(x.shape, generator=g, dtype=x.dtype)}),
    ("value_of_the_start", "stale_log_prob", {"renew": "s"}),
    ("score_of_the_start", "stale_score", {"renew": "p"}),
    ("score_of_the_proposal", "stale_score", {"renew": "py"}),
    ("noise_once", "same_noise", {"once": "z"}),
    ("decision_once", "same_uniform", {"once": "u"}),
    ("noise_for_all_rows", "shared_noise", {"noise": lambda x, g: normal(x[:1], g).expand_as(x)}),
    (
        "noise_by_halves",
        "shared_noise",
        {"noise": lambda x, g: torch.cat([normal(x[: len(x) // 2], g)] * 2) if len(x) % 2 == 0 else normal(x, g)},
    ),
    ("one_decision", "shared_uniform", {"u": lambda n, g: torch.rand((), generator=g, dtype=torch.float64).expand(n)}),
    (
        "ratio_of_the_batch",
        "batch_decision|always_accepted",
        {"log_ratio": lambda dp, dq: (dp + dq).mean().expand(len(dp))},
    ),
    ("own_seed", "fixed_seed", {"noise": lambda x, g: normal(x, torch.Generator().manual_seed(0))}),
    ("share_of_refused", "acceptance_rate", {"rate": lambda count, n: 1 - (count / n).mean()}),
    ("count", "acceptance_rate", {"rate": lambda count, n: count.mean()}),
    ("per_cent", "acceptance_rate", {"rate": lambda count, n: 100 * (count / n).mean()}),
):
    wrong("metropolis", name, adjusted(**parts), key)
for name, keys, parts in (
    ("no_ratio_stale_value", ("no_proposal_ratio", "stale_log_prob"), {"log_ratio": lambda dp, dq: dp, "renew": "s"}),
    (
        "one_drift_count",
        ("one_drift", "acceptance_rate"),
        {"back": lambda s, s_y: s, "rate": lambda count, n: count.mean()},
    ),
    (
        "narrow_kick_no_log",
        ("epsilon_for_two_epsilon", "no_log"),
        {"kick": lambda e: e**0.5, "take": lambda u, a: u < a},
    ),
    (
        "upside_down_half_drift",
        ("inverted_proposal_ratio", "half_drift"),
        {"log_ratio": lambda dp, dq: dp - dq, "drift": lambda e: e / 2},
    ),
    ("all_taken_no_kick", ("always_accepted", "no_noise"), {"take": lambda u, a: u >= 0, "kick": lambda e: 0.0}),
):
    wrong("metropolis", name, adjusted(**parts), *keys)
wrong("metropolis", "states_alone", lambda *a, **k: adjusted()(*a, **k)[0], "type")


# Projections and sliced losses in one form.


def probes(draw, scale=1.0, shape=lambda x: x.shape):
    """Student's projections, each drawn by a function of shape and generator."""

    def student(x, n, *, generator):
        v = scale * draw((n, *shape(x)), generator)
        return v.to(x.dtype).expand(n, *x.shape)

    return student


def gauss(shape, generator):
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def signs_of(shape, generator):
    return torch.where(torch.rand(shape, generator=generator, dtype=torch.float64) < 0.5, -1.0, 1.0)


def sphere(shape, generator):
    return torch.nn.functional.normalize(gauss(shape, generator), dim=-1)


right("projections", "normal", probes(gauss))
right("projections", "random_signs", probes(signs_of))
right("projections", "of_the_book", lambda x, n, *, generator: sliced_score_matching.random_projections(
    x, n, kind="sphere", generator=generator))  # fmt: skip
right("projections", "one_after_another", lambda x, n, *, generator: torch.stack(
    [normal(x, generator) for _ in range(n)]))  # fmt: skip
wrong("projections", "unit", probes(sphere), "unit_projections")
wrong("projections", "of_length_d", probes(sphere, 5.0), "wrong_norm")
wrong("projections", "normal_over_root_d", probes(gauss, 5**-0.5), "unit_projections")
wrong("projections", "rand", probes(lambda s, g: torch.rand(s, generator=g)), "uniform_projections")
wrong("projections", "rand_about_zero", probes(lambda s, g: torch.rand(s, generator=g) - 0.5), "uniform_symmetric")
wrong("projections", "ones", probes(lambda s, g: torch.ones(s)), "one_direction")
wrong("projections", "for_all_points", probes(gauss, shape=lambda x: (1, x.shape[1])), "shared_projection")
wrong("projections", "for_all_n", lambda x, n, *, generator: normal(x, generator).expand(n, *x.shape),
      "same_projection")  # fmt: skip
wrong("projections", "own_seed", lambda x, n, *, generator: probes(gauss)(
    x, n, generator=torch.Generator().manual_seed(1)), "fixed_seed")  # fmt: skip


def slices(reduced, draw=normal, *, n=1, other=None, trace=1.0, half=0.5, graph=True, square=None, over=torch.mean,
           scale=lambda n: 1 / n):  # fmt: skip
    """Student's sliced loss in one of its forms."""

    def loss(model, x, *, generator):
        x = x.detach().clone().requires_grad_()
        s, total = model(x), 0.0
        for _ in range(n):
            v = draw(x, generator)
            (back,) = torch.autograd.grad((s * v).sum(), x, create_graph=graph, retain_graph=True)
            along = v if other is None else other(x, generator)
            default = s.square().sum(1) if reduced else (s * v).sum(1).square()
            total = total + trace * (back * along).sum(1) + half * (default if square is None else square(s, v))
        return over(scale(n) * total)

    return loss


for _name, _reduced in (("plain", False), ("reduced", True)):
    _kind = f"{_name} sliced loss"
    right(_kind, f"{_name}_normal", slices(_reduced))
    right(_kind, f"{_name}_three_signs", slices(_reduced, lambda x, g: signs_of(x.shape, g), n=3))
    right(_kind, f"{_name}_transposed", lambda model, x, *, generator, reduced=_reduced: slices_forward(
        model, x, generator, reduced))  # fmt: skip
    for _slip, _key, _parts in (
        ("no_half", "half", {"half": 1.0}),
        ("trace_sign", "trace_sign", {"trace": -1.0}),
        ("square_sign", "square_sign", {"half": -0.5}),
        ("no_graph", "detached", {"graph": False}),
        ("sum", "sum_batch", {"over": torch.sum}),
        ("half_trace", "half_trace", {"trace": 0.5}),
        ("unit", "unit_projections", {"draw": lambda x, g: sphere(x.shape, g)}),
        ("rand", "uniform_projections", {"draw": lambda x, g: torch.rand(x.shape, generator=g, dtype=x.dtype)}),
        ("cube", "uniform_symmetric", {"draw": lambda x, g: 2 * torch.rand(x.shape, generator=g, dtype=x.dtype) - 1}),
        ("one_for_all", "shared_projection", {"draw": lambda x, g: normal(x[:1], g).expand_as(x)}),
        ("own_seed", "fixed_seed|same_probe", {"draw": lambda x, g: normal(x, torch.Generator().manual_seed(0))}),
        ("added", "projections_added", {"n": 4, "scale": lambda n: 1.0}),
        ("two_probes", "two_probes", {"other": normal}),
        ("no_square", "no_square", {"half": 0.0}),
        ("mean_square", "mean_square", {"square": lambda s, v: s.square().mean(1)}),
        ("norm", "norm", {"square": lambda s, v: s.norm(dim=1) if len(s) else s}),
    ):
        if not (_slip == "norm" and not _reduced):
            wrong(_kind, f"{_name}_{_slip}", slices(_reduced, **_parts), _key)
    wrong(_kind, f"{_name}_as_the_other", slices(not _reduced), "not_reduced" if _reduced else "reduced")
    wrong(_kind, f"{_name}_sign_and_cube", slices(
        _reduced, lambda x, g: 2 * torch.rand(x.shape, generator=g, dtype=x.dtype) - 1, trace=-1.0),
        "trace_sign", "uniform_symmetric")  # fmt: skip
    wrong(_kind, f"{_name}_half_and_other_form", slices(not _reduced, half=1.0),
          "half", "not_reduced" if _reduced else "reduced")  # fmt: skip


def slices_forward(model, x, generator, reduced):
    """In forward mode: the Jacobian itself, where backward mode has its transpose."""
    v = normal(x, generator)
    s, along = torch.func.jvp(model, (x,), (v,))
    square = s.square().sum(1) if reduced else (s * v).sum(1).square()
    return ((along * v).sum(1) + 0.5 * square).mean()
