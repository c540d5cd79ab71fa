"""Estimates, Metropolis adjustment and sliced losses of the first pile, written before their checks."""

import math

import numpy as np
import torch
from torch.autograd.functional import jacobian

from catalogue import Catalogue, normal
from scorebook import langevin, monte_carlo, sliced_score_matching

catalogue = Catalogue()
right, wrong = catalogue.right, catalogue.wrong


# A mean with its standard error.


@right("mean estimate")
def by_numpy(values):
    v = values.numpy()
    return v.mean(axis=0), v.std(axis=0, ddof=1) / np.sqrt(v.shape[0])


@right("mean estimate")
def sums_by_hand(values):
    n = values.size(0)
    centre = sum(values) / n
    squares = sum((row - centre) ** 2 for row in values)
    return centre, torch.sqrt(squares / (n * (n - 1)))


@right("mean estimate")
def var_mean(values):
    v, m = torch.var_mean(values, dim=0)
    return m, v.div(values.shape[0]).sqrt()


@right("mean estimate")
def the_books_estimate(values):
    return monte_carlo.expectation(lambda x: x, values)


@wrong("mean estimate", "std_for_error")
def spread_of_the_draws(values):
    return values.mean(0), torch.std(values, dim=0)


@wrong("mean estimate", "population")
def numpys_default(values):
    v = values.numpy()
    return v.mean(0), v.std(0) / len(v) ** 0.5


@wrong("mean estimate", "no_root")
def over_n(values):
    return values.mean(0), values.std(0) / len(values)


@wrong("mean estimate", "wrong_n")
def numel_under_the_root(values):
    return values.mean(0), values.std(0) / values.numel() ** 0.5


@wrong("mean estimate", "wrong_n")
def root_of_columns(values):
    return values.mean(0), values.std(0) / math.sqrt(values.shape[-1])


@wrong("mean estimate", "variance_for_std")
def variance_over_n(values):
    return values.mean(0), values.var(0) / len(values)


@wrong("mean estimate", "interval")
def half_of_the_interval(values):
    return values.mean(0), 1.96 * values.std(0) / len(values) ** 0.5


@wrong("mean estimate", "pooled")
def one_spread_for_all(values):
    return values.mean(0), (values.std() / len(values) ** 0.5).expand(values.shape[1])


@wrong("mean estimate", "uncentred")
def root_mean_square(values):
    return values.mean(0), (values.square().mean(0) / len(values)).sqrt()


@wrong("mean estimate", "population", "std_for_error")
def numpys_std(values):
    v = values.numpy()
    return np.mean(v, 0), np.std(v, 0)


@wrong("mean estimate", "sum", "population")
def sum_and_numpy(values):
    return values.sum(0), values.std(0, correction=0) / len(values) ** 0.5


# Antithetic pairs.


def _antithetic(f, n, generator, mirror=lambda z: -z, draw=torch.randn, join=lambda a, b: (a + b) / 2, error=None):
    z = draw(n, generator=generator, dtype=torch.float64)
    pairs = join(f(z), f(mirror(z)))
    return pairs.mean(), pairs.std() / n**0.5 if error is None else error(f(z), f(mirror(z)))


@right("antithetic estimate")
def pairs_at_once(f, n_pairs, *, generator):
    z = torch.normal(0.0, 1.0, (n_pairs,), generator=generator, dtype=torch.float64)
    both = f(torch.stack([z, -z], 1)).mean(1)
    return both.mean().item(), both.std().item() / math.sqrt(n_pairs)


@right("antithetic estimate")
def one_pair_after_another(f, n_pairs, *, generator):
    means = []
    for _ in range(n_pairs):
        z = torch.randn((), generator=generator, dtype=torch.float64)
        means.append((f(z) + f(-z)).item() / 2)
    return np.mean(means), np.std(means, ddof=1) / n_pairs**0.5


@right("antithetic estimate")
def asked_again_for_the_error(f, n_pairs, *, generator):
    return _antithetic(f, n_pairs, generator)


@wrong("antithetic estimate", "independent_pairs")
def all_draws_alike(f, n_pairs, *, generator):
    z = torch.randn(n_pairs, generator=generator, dtype=torch.float64)
    values = f(torch.cat([z, -z]))
    return values.mean(), values.std() / (2 * n_pairs) ** 0.5


@wrong("antithetic estimate", "fixed_seed")
def seed_inside(f, n_pairs, *, generator):
    torch.manual_seed(42)
    return _antithetic(f, n_pairs, None)


@wrong("antithetic estimate", "not_mirrored")
def drawn_twice(f, n_pairs, *, generator):
    z, other = torch.randn(2, n_pairs, generator=generator, dtype=torch.float64)
    pairs = (f(z) + f(other)) / 2
    return pairs.mean(), pairs.std() / n_pairs**0.5


@wrong("antithetic estimate", "uniform_noise")
def rand_mirrored(f, n_pairs, *, generator):
    return _antithetic(f, n_pairs, generator, draw=torch.rand)


@wrong("antithetic estimate", "wrong_n")
def pairs_counted_twice(f, n_pairs, *, generator):
    z = torch.randn(n_pairs, generator=generator, dtype=torch.float64)
    pairs = (f(z) + f(-z)) / 2
    return pairs.mean(), pairs.std() / (2 * n_pairs) ** 0.5


@wrong("antithetic estimate", "not_halved")
def sum_of_a_pair(f, n_pairs, *, generator):
    return _antithetic(f, n_pairs, generator, join=lambda a, b: a + b)


@wrong("antithetic estimate", "independent_pairs", "population")
def alike_by_numpy(f, n_pairs, *, generator):
    z = torch.randn(n_pairs, generator=generator, dtype=torch.float64)
    values = torch.cat([f(z), f(-z)]).numpy()
    return values.mean(), values.std() / len(values) ** 0.5


# Weights.


@right("importance estimate")
def product_and_its_spread(values, log_weights):
    terms = (values * torch.exp(log_weights)).numpy()
    return terms.mean(), np.std(terms, ddof=1) / np.sqrt(terms.size)


@right("importance estimate")
def in_single_precision(values, log_weights):
    terms = values.float() * log_weights.float().exp()
    return terms.mean(), (terms.var() / len(terms)) ** 0.5


@wrong("importance estimate", "normalised")
def divided_by_their_sum(values, log_weights):
    w = log_weights.exp()
    w = w / w.sum()
    mean = (w * values).sum()
    return mean, (w**2 * (values - mean) ** 2).sum().sqrt()


@wrong("importance estimate", "unweighted_error")
def spread_of_the_values(values, log_weights):
    return (values * log_weights.exp()).mean(), values.std() / len(values) ** 0.5


@wrong("importance estimate", "log_weights")
def never_exponentiated(values, log_weights):
    terms = values * log_weights
    return terms.mean(), terms.std() / len(terms) ** 0.5


@wrong("importance estimate", "inverse_weights")
def upside_down(values, log_weights):
    terms = values / log_weights.exp()
    return terms.mean(), terms.std() / len(terms) ** 0.5


@wrong("importance estimate", "std_for_error")
def no_root_of_n(values, log_weights):
    terms = values * log_weights.exp()
    return terms.mean(), terms.std()


@right("self-normalised estimate")
def softmax_and_delta(values, log_weights):
    w = torch.softmax(log_weights, 0)
    mean = w @ values
    return mean, torch.linalg.norm(w * (values - mean))


@right("self-normalised estimate")
def shifted_by_the_greatest(values, log_weights):
    v, w = values.numpy(), np.exp(log_weights.numpy() - log_weights.numpy().max())
    mean = np.average(v, weights=w)
    return mean, np.sqrt((w**2 * (v - mean) ** 2).sum()) / w.sum()


@right("self-normalised estimate")
def logarithms_throughout(values, log_weights):
    log_w = log_weights - torch.logsumexp(log_weights, 0)
    mean = (log_w.exp() * values).sum()
    n = len(values)
    return mean, ((2 * log_w).exp() * (values - mean) ** 2).sum().mul(n / (n - 1)).sqrt()


@wrong("self-normalised estimate", "underflow")
def weights_in_the_open(values, log_weights):
    w = log_weights.exp() / log_weights.exp().sum()
    mean = (w * values).sum()
    return mean, (w**2 * (values - mean) ** 2).sum().sqrt()


@wrong("self-normalised estimate", "plain_error")
def error_of_the_product(values, log_weights):
    w = log_weights.softmax(0)
    terms = len(w) * w * values
    return terms.mean(), terms.std() / len(w) ** 0.5


@wrong("self-normalised estimate", "error_by_ess")
def spread_over_the_effective_number(values, log_weights):
    w = log_weights.softmax(0)
    mean = (w * values).sum()
    return mean, ((w * (values - mean) ** 2).sum() * w.square().sum()).sqrt()


@wrong("self-normalised estimate", "unsquared_weights")
def weighted_spread(values, log_weights):
    w = log_weights.softmax(0)
    mean = (w * values).sum()
    return mean, (w * (values - mean) ** 2).sum().sqrt()


@wrong("self-normalised estimate", "no_weights|unweighted_error")
def error_without_weights(values, log_weights):
    return (log_weights.softmax(0) * values).sum(), values.std() / len(values) ** 0.5


@wrong("self-normalised estimate", "unsquared_weights", "std_for_error|wrong_n")
def weighted_spread_over_root_n(values, log_weights):
    w = log_weights.softmax(0)
    mean = (w * values).sum()
    return mean, (w * (values - mean) ** 2).sum().sqrt() / len(w) ** 0.5


@right("effective draws")
def normalised_then_squared(log_weights):
    return 1 / torch.softmax(log_weights, dim=0).square().sum()


@right("effective draws")
def by_coefficient_of_variation(log_weights):
    w = np.exp(log_weights.numpy() - log_weights.max().item())
    return len(w) / (1 + (w.std() / w.mean()) ** 2)


@wrong("effective draws", "no_square")
def sum_not_squared(log_weights):
    w = (log_weights - log_weights.max()).exp()
    return w.sum() / w.square().sum()


@wrong("effective draws", "inverse")
def upside_down_ess(log_weights):
    return log_weights.softmax(0).square().sum()


@wrong("effective draws", "share")
def share_of_all(log_weights):
    return 1 / (len(log_weights) * log_weights.softmax(0).square().sum())


@wrong("effective draws", "entropy")
def perplexity(log_weights):
    w = log_weights.softmax(0)
    return (-(w * w.log()).sum()).exp()


@wrong("effective draws", "underflow")
def plain_sums(log_weights):
    w = log_weights.exp()
    return w.sum() ** 2 / (w**2).sum()


# Metropolis adjustment.


def _value_and_score(log_prob, x):
    x = x.detach().requires_grad_()
    value = log_prob(x)
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


@right("metropolis")
def the_books_own(log_prob, x, *, step_size, n_steps, generator):
    return langevin.metropolis_adjusted_langevin(log_prob, x, step_size=step_size, n_steps=n_steps, generator=generator)


@right("metropolis")
def by_multivariate_normals(log_prob, x, *, step_size, n_steps, generator):
    def proposal(x):
        return torch.distributions.Independent(
            torch.distributions.Normal(x + step_size * _value_and_score(log_prob, x)[1], (2 * step_size) ** 0.5), 1
        )

    total = 0.0
    for _ in range(n_steps):
        forth = proposal(x)
        y = forth.mean + forth.stddev * normal(x, generator)
        ratio = log_prob(y) + proposal(y).log_prob(x) - log_prob(x) - forth.log_prob(y)
        u = torch.rand(len(x), generator=generator, dtype=x.dtype)
        accepted = u < ratio.exp().clamp(max=1)
        x = torch.where(accepted[:, None], y, x).detach()
        total += accepted.double().mean().item()
    return x, total / n_steps


@right("metropolis")
def in_place_by_index(log_prob, x, *, step_size, n_steps, generator):
    x = x.clone()
    logp, s = _value_and_score(log_prob, x)
    count = torch.zeros(len(x))
    for _ in range(n_steps):
        y = x + step_size * s + math.sqrt(2 * step_size) * normal(x, generator)
        logp_y, s_y = _value_and_score(log_prob, y)
        forward = ((y - x - step_size * s) ** 2).sum(1)
        back = ((x - y - step_size * s_y) ** 2).sum(1)
        log_a = logp_y - logp + (forward - back) / (4 * step_size)
        keep = torch.log(torch.rand(len(x), generator=generator, dtype=x.dtype)) < log_a
        x[keep], logp[keep], s[keep] = y[keep], logp_y[keep], s_y[keep]
        count += keep
    return x, count / n_steps


@right("metropolis")
def chain_after_chain(log_prob, x, *, step_size, n_steps, generator):
    parts = [
        in_place_by_index(log_prob, part, step_size=step_size, n_steps=n_steps, generator=generator)
        for part in x.split(1000)
    ]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


@right("metropolis")
def mapped_gradients(log_prob, x, *, step_size, n_steps, generator):
    both = torch.func.vmap(torch.func.grad_and_value(lambda row: log_prob(row[None])[0]))
    rate = 0
    for _ in range(n_steps):
        s, p = both(x)
        y = x + step_size * s + (2 * step_size) ** 0.5 * normal(x, generator)
        s_y, p_y = both(y)
        # The quadratic terms cancel to this.
        log_q = -0.5 * ((y - x) * (s + s_y)).sum(1) - step_size / 4 * (s_y.square() - s.square()).sum(1)
        u = torch.empty(len(x), dtype=x.dtype).uniform_(generator=generator)
        ok = u.log() <= p_y - p + log_q
        x = x + ok[:, None] * (y - x)
        rate = rate + ok.float() / n_steps
    return x, rate


def _mala(log_prob, x, step_size, n_steps, generator, **w):
    p, s = _value_and_score(log_prob, x)
    taken = torch.zeros(len(x), dtype=x.dtype)
    for _ in range(n_steps):
        z = w.get("noise", normal)(x, generator)
        y = x + w.get("drift", step_size) * s + w.get("kick", (2 * step_size) ** 0.5) * z
        p_y, s_y = _value_and_score(log_prob, y)
        forth, back = y - x - step_size * s, x - y - step_size * (s if w.get("one_point") else s_y)
        width = w.get("width", 4 * step_size)
        log_q = (forth.square().sum(1) - back.square().sum(1)) / width
        log_a = w.get("ratio", lambda dp, lq: dp + lq)(p_y - p, log_q)
        u = w.get("u", lambda n, g: torch.rand(n, generator=g, dtype=torch.float64))(len(x), generator)
        keep = w.get("decide", lambda u, a: u.log() < a)(u, log_a)
        x = torch.where(keep[:, None], y, x)
        if not w.get("stale_value"):
            p = torch.where(keep, p_y, p)
        s = s_y if w.get("score_of_proposal") else torch.where(keep[:, None], s_y, s)
        taken += keep
    return x, w.get("rate", lambda taken, n: taken / n)(taken, n_steps)


def _wrong_mala(name, *mistakes, **slips):
    def student(log_prob, x, *, step_size, n_steps, generator):
        made = {key: make(step_size) if key in ("drift", "kick", "width") else make for key, make in slips.items()}
        return _mala(log_prob, x, step_size, n_steps, generator, **made)

    catalogue.add("metropolis", name, student, *mistakes)


_wrong_mala("symmetric_as_if", "no_proposal_ratio", ratio=lambda dp, lq: dp)
_wrong_mala("ratio_upside_down", "inverted_proposal_ratio", ratio=lambda dp, lq: dp - lq)
_wrong_mala("old_over_new", "inverted_ratio", ratio=lambda dp, lq: -dp - lq)
_wrong_mala("drift_of_x_both_ways", "one_drift", one_point=True)
_wrong_mala("u_without_log", "no_log", decide=lambda u, a: u < a)
_wrong_mala("one_u", "shared_uniform", u=lambda n, g: torch.rand(1, generator=g, dtype=torch.float64).expand(n))
_wrong_mala("all_or_none", "batch_decision", ratio=lambda dp, lq: (dp + lq).sum().expand(len(dp)))
_wrong_mala("two_epsilon_in_the_density", "proposal_variance", width=lambda e: 2 * e)
_wrong_mala("eight_epsilon_squared", "proposal_variance", width=lambda e: 8 * e**2)
_wrong_mala("kick_of_root_epsilon", "epsilon_for_two_epsilon", kick=lambda e: e**0.5)
_wrong_mala("noise_for_all_chains", "shared_noise", noise=lambda x, g: normal(x[:1], g).expand_as(x))
_wrong_mala("value_never_renewed", "stale_log_prob", stale_value=True)
_wrong_mala("score_of_what_was_refused", "stale_score", score_of_proposal=True)
_wrong_mala("nothing_refused", "always_accepted", decide=lambda u, a: u.log() < a.exp() + 1)
_wrong_mala("no_kick", "no_noise", kick=lambda e: 0.0)
_wrong_mala("share_of_refused", "acceptance_rate", rate=lambda taken, n: 1 - taken / n)
_wrong_mala("count_of_accepted", "acceptance_rate", rate=lambda taken, n: taken)
_wrong_mala("seeded", "fixed_seed", noise=lambda x, g: normal(x, torch.Generator().manual_seed(1)))
_wrong_mala("refused_if_accepted", "swapped", decide=lambda u, a: u.log() >= a)
_wrong_mala(
    "no_ratio_and_narrow",
    "no_proposal_ratio",
    "epsilon_for_two_epsilon",
    ratio=lambda dp, lq: dp,
    kick=lambda e: e**0.5,
)
_wrong_mala(
    "inverted_and_refused_share",
    "inverted_ratio",
    "acceptance_rate",
    ratio=lambda dp, lq: -dp - lq,
    rate=lambda taken, n: 1 - taken / n,
)


@wrong("metropolis", "rejected_dropped")
def only_the_accepted(log_prob, x, *, step_size, n_steps, generator):
    new, rate = _mala(log_prob, x, step_size, n_steps, generator)
    return new[rate > 0], rate.mean()


@wrong("metropolis", "rejected_dropped")
def again_until_taken(log_prob, x, *, step_size, n_steps, generator):
    for _ in range(n_steps):
        new, first = _mala(log_prob, x, step_size, 1, generator)
        todo = first == 0
        while todo.any():
            new[todo], taken = _mala(log_prob, x[todo], step_size, 1, generator)
            left = todo.clone()
            left[todo] = taken == 0
            todo = left
        x = new
    return x, first.mean()


# Projections and sliced losses.


@right("projections")
def signs_by_randint(x, n, *, generator):
    return torch.randint(0, 2, (n, *x.shape), generator=generator).to(x) * 2 - 1


@right("projections")
def gaussian_probes(x, n, *, generator):
    return torch.randn(n, *x.shape, generator=generator, dtype=x.dtype)


@right("projections")
def scaled_uniform(x, n, *, generator):
    return (2 * torch.rand(n, *x.shape, generator=generator, dtype=x.dtype) - 1) * math.sqrt(3)


@right("projections")
def coordinate_vectors(x, n, *, generator):
    d = x.shape[1]
    which = torch.randint(d, (n, len(x)), generator=generator)
    return math.sqrt(d) * torch.nn.functional.one_hot(which, d).to(x)


@wrong("projections", "unit_projections")
def length_one(x, n, *, generator):
    v = torch.randn(n, *x.shape, generator=generator, dtype=x.dtype)
    return v / v.norm(dim=-1, keepdim=True)


@wrong("projections", "uniform_symmetric")
def between_minus_one_and_one(x, n, *, generator):
    return torch.rand(n, *x.shape, generator=generator, dtype=x.dtype) * 2 - 1


@wrong("projections", "shared_projection|shared_noise")
def one_for_the_batch(x, n, *, generator):
    return torch.randn(n, 1, x.shape[1], generator=generator, dtype=x.dtype).expand(n, *x.shape)


@wrong("projections", "uniform_projections")
def zeros_and_ones(x, n, *, generator):
    return torch.randint(0, 2, (n, *x.shape), generator=generator).to(x)


def _slices(model, x, v, create_graph=True):
    x = x.detach().requires_grad_()
    s = model(x)
    return s, torch.autograd.grad(s, x, v, create_graph=create_graph)[0]


def _signs(x, generator):
    return torch.sign(torch.randn(x.shape, generator=generator, dtype=x.dtype))


@right("reduced sliced loss")
def vjp_and_norm(model, x, *, generator):
    v = _signs(x, generator)
    s, back = _slices(model, x, v)
    return torch.mean(torch.sum(back * v, -1) + torch.sum(s * s, -1) / 2)


@right("reduced sliced loss")
def by_forward_mode(model, x, *, generator):
    v = normal(x, generator)
    s, along = torch.func.jvp(model, (x,), (v,))
    return ((v * along).sum(1) + 0.5 * s.pow(2).sum(1)).mean()


@right("reduced sliced loss")
def by_functional_vjp(model, x, *, generator):
    v = _signs(x, generator)
    s, back = torch.func.vjp(model, x)
    return ((back(v)[0] * v).sum(1) + 0.5 * s.square().sum(1)).mean()


@right("reduced sliced loss")
def three_directions(model, x, *, generator):
    total = 0
    for _ in range(3):
        v = normal(x, generator)
        s, back = _slices(model, x, v)
        total = total + (back * v).sum(1) / 3
    return (total + 0.5 * s.square().sum(1)).mean()


@right("plain sliced loss")
def the_papers_form(model, x, *, generator):
    v = normal(x, generator)
    s, back = _slices(model, x, v)
    return (torch.einsum("bi,bi->b", back, v) + 0.5 * torch.einsum("bi,bi->b", s, v) ** 2).mean()


@right("plain sliced loss")
def in_three_pieces(model, x, *, generator):
    return sum(the_papers_form(model, part, generator=generator) * len(part) for part in x.tensor_split(3)) / len(x)


@right("plain sliced loss")
def the_books_plain(model, x, *, generator):
    return sliced_score_matching.sliced_score_matching_loss(
        model, x, kind="gaussian", variance_reduced=False, generator=generator
    )


@wrong("reduced sliced loss", "not_reduced")
def square_of_the_slice(model, x, *, generator):
    return the_papers_form(model, x, generator=generator)


@wrong("plain sliced loss", "reduced")
def norm_for_the_slice(model, x, *, generator):
    return vjp_and_norm(model, x, generator=generator)


def _wrong_loss(kind, name, *mistakes, draw=normal, graph=True, trace=1.0, half=0.5, square=None, after=torch.mean):
    def student(model, x, *, generator):
        v = draw(x, generator)
        s, back = _slices(model, x, v, graph)
        default = s.square().sum(1) if kind.startswith("reduced") else (s * v).sum(1).square()
        return after(trace * (back * v).sum(1) + half * (default if square is None else square(s, v)))

    catalogue.add(kind, name, student, *mistakes)


for _kind in ("plain sliced loss", "reduced sliced loss"):
    _wrong_loss(_kind, "no_half", "half", half=1.0)
    _wrong_loss(_kind, "minus_trace", "trace_sign", trace=-1.0)
    _wrong_loss(_kind, "without_graph", "detached", graph=False)
    _wrong_loss(
        _kind, "one_direction", "shared_projection|shared_noise", draw=lambda x, g: normal(x[:1], g).expand_as(x)
    )
    _wrong_loss(
        _kind, "cube", "uniform_symmetric", draw=lambda x, g: 2 * torch.rand(x.shape, generator=g, dtype=x.dtype) - 1
    )
    _wrong_loss(_kind, "summed", "sum_batch", after=torch.sum)
    _wrong_loss(
        _kind,
        "cube_and_half",
        "uniform_symmetric",
        "half",
        half=1.0,
        draw=lambda x, g: 2 * torch.rand(x.shape, generator=g, dtype=x.dtype) - 1,
    )
    _wrong_loss(_kind, "seeded", "fixed_seed|same_probe", draw=lambda x, g: normal(x, torch.Generator().manual_seed(5)))

_wrong_loss("reduced sliced loss", "mean_of_squares", "mean_square", square=lambda s, v: s.square().mean(1))
_wrong_loss("reduced sliced loss", "bare_norm", "norm", square=lambda s, v: s.norm(dim=1))
_wrong_loss(
    "reduced sliced loss",
    "unit",
    "unit_projections",
    draw=lambda x, g: torch.nn.functional.normalize(normal(x, g), dim=1),
)


@wrong("plain sliced loss", "two_probes")
def other_direction_on_the_left(model, x, *, generator):
    s, back = _slices(model, x, normal(x, generator))
    v = normal(x, generator)
    return ((back * v).sum(1) + 0.5 * (s * v).sum(1) ** 2).mean()


@wrong("reduced sliced loss", "no_trace|trace_of_other")
def derivative_of_the_square(model, x, *, generator):
    x = x.detach().requires_grad_()
    s, v = model(x), normal(x, generator)
    (back,) = torch.autograd.grad(0.5 * s.square().sum(), x, create_graph=True)
    return ((back * v).sum(1) + 0.5 * s.square().sum(1)).mean()


@right("reduced sliced loss")
def whole_jacobian(model, x, *, generator):
    v = _signs(x, generator)
    rows = [jacobian(lambda r: model(r[None])[0], row, create_graph=True) for row in x[:, :]]
    return (torch.einsum("bi,bij,bj->b", v, torch.stack(rows), v) + 0.5 * model(x).square().sum(1)).mean()
