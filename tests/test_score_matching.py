"""Score matching is held against closed forms, against autograd taken apart, and against its own identity.

The losses are means over a sample. Over the points ``m ± sqrt(d) L e_i`` every polynomial of degree two has the same
mean as under ``N(m, L L^T)``, so that for linear scores the losses take their exact expected values.
"""

import math
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scorebook.lab import MLP, GaussianMixture, UNet
from scorebook.score_matching import (
    divergence,
    explicit_score_matching_loss,
    fisher_divergence,
    implicit_score_matching_loss,
    integrate_score,
    score_of,
    value_and_divergence,
)

F64 = torch.float64
EXACT = {"rtol": 1e-9, "atol": 1e-9}
SEEDS = st.integers(0, 10_000)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=F64)


def mixture(*, dim=2, seed=0, n_components=3):
    g = generator(seed)
    root = torch.randn(n_components, dim, dim, generator=g, dtype=F64)
    weights = torch.rand(n_components, generator=g, dtype=F64) + 0.3
    means = 1.5 * torch.randn(n_components, dim, generator=g, dtype=F64)
    return GaussianMixture(weights / weights.sum(), means, root @ root.mT + 0.3 * torch.eye(dim, dtype=F64))


def network(event_shape=2, *, seed=0, **options):
    return MLP(event_shape, width=16, generator=generator(seed), **options).double()


def curved(x):
    """A field that is linear in no direction and whose entries all depend on each other."""
    return torch.sin(x) * x.flatten(1).square().sum(1).reshape(-1, *[1] * (x.ndim - 1)) + x.roll(1, -1) ** 3


def trace_of_jacobian(field, x):
    rows = [torch.autograd.functional.jacobian(lambda v: field(v[None])[0], row, create_graph=True) for row in x]
    return torch.stack([row.reshape(x[0].numel(), -1).trace() for row in rows])


def gaussian(dim, seed):
    """Mean, covariance and points whose first two moments are exactly these."""
    mean, root = normal(dim, seed=seed), normal(dim, dim, seed=seed + 1) + 2 * torch.eye(dim, dtype=F64)
    offsets = math.sqrt(dim) * root.mT
    return mean, root @ root.mT, torch.cat([mean + offsets, mean - offsets])


def linear_score(precision, centre):
    return lambda x: -(x - centre) @ precision.mT


def assert_zero_mean(terms):
    assert abs(float(terms.mean())) <= 4 * float(terms.std()) / math.sqrt(len(terms))


# The score


@settings(max_examples=30)
@given(dim=st.integers(1, 5), seed=SEEDS, constant=st.floats(-50, 50))
def test_the_score_is_the_closed_form_whatever_the_constant(dim, seed, constant):
    law, x = mixture(dim=dim, seed=seed), 2 * normal(7, dim, seed=seed)
    torch.testing.assert_close(score_of(lambda x: law.log_prob(x) + constant, x), law.score(x), **EXACT)


@pytest.mark.parametrize("event", [(), (1,), (3,), (2, 3), (2, 1, 2)])
def test_the_score_has_the_shape_of_the_event(event):
    x = normal(4, *event)
    score = score_of(lambda x: -0.25 * x.reshape(len(x), -1).pow(4).sum(1), x)
    torch.testing.assert_close(score, -(x**3))


def test_the_score_is_differentiable_in_points_and_parameters():
    law, x = mixture(), normal(5, 2)
    torch.testing.assert_close(
        divergence(lambda x: score_of(law.log_prob, x), x), divergence(law.score, x), rtol=1e-8, atol=1e-8
    )
    energy = network(out_dim=1)
    score_of(energy, x).square().sum().backward()
    assert any(p.grad is not None and bool((p.grad != 0).any()) for p in energy.parameters())


def test_the_score_of_a_constant_is_zero():
    x = normal(4, 2)
    parameter = torch.ones(4, dtype=F64, requires_grad=True)
    for log_prob in (lambda x: torch.zeros(4, dtype=F64), lambda x: parameter * 1.0):
        assert torch.equal(score_of(log_prob, x), torch.zeros_like(x))


@pytest.mark.parametrize("function", [score_of, divergence])
def test_without_grad_the_result_is_a_plain_tensor(function):
    x, net = normal(4, 2), network(out_dim=1 if function is score_of else None)
    watched = function(net, x)
    with torch.no_grad():
        plain = function(net, x)
        of_watched_points = function(net, x.clone().requires_grad_())
    assert watched.requires_grad
    assert not plain.requires_grad
    assert not of_watched_points.requires_grad
    assert not x.requires_grad
    torch.testing.assert_close(plain, watched.detach())
    torch.testing.assert_close(of_watched_points, plain)


# From the score back to the density


@settings(max_examples=30)
@given(dim=st.integers(1, 4), seed=SEEDS)
def test_the_integrated_score_is_the_difference_of_log_densities(dim, seed):
    law = mixture(dim=dim, seed=seed).diffuse(1.0, 1.0)
    x, origin = 2 * normal(6, dim, seed=seed), normal(6, dim, seed=seed + 1)
    expected = law.log_prob(x) - law.log_prob(origin)
    torch.testing.assert_close(integrate_score(law.score, x, origin), expected, rtol=1e-6, atol=1e-6)
    expected = law.log_prob(x) - law.log_prob(origin[:1])
    torch.testing.assert_close(integrate_score(law.score, x, origin[0]), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n_nodes", [1, 2, 3])
def test_the_rule_is_exact_up_to_its_degree_and_no_further(n_nodes):
    x, origin = normal(5, 1), normal(5, 1, seed=1)

    def error(power):
        exact = (x ** (power + 1) - origin ** (power + 1))[:, 0] / (power + 1)
        return float((integrate_score(lambda x: x**power, x, origin, n_nodes=n_nodes) - exact).abs().max())

    assert max(error(power) for power in range(2 * n_nodes)) < 1e-12
    assert error(2 * n_nodes) > 1e-6


def test_a_field_that_turns_has_no_density_its_integral_depends_on_the_path():
    def turning(x):
        return torch.stack([-x[:, 1], x[:, 0]], dim=1)

    a, b, c = (torch.tensor([corner], dtype=F64) for corner in ([0.0, 0.0], [1.0, 0.0], [1.0, 1.0]))
    direct = integrate_score(turning, c, a)
    round_the_corner = integrate_score(turning, b, a) + integrate_score(turning, c, b)
    assert float(round_the_corner - direct) == pytest.approx(1)  # twice the area of the triangle, by Green's theorem


# Divergence


@settings(max_examples=40)
@given(
    event=st.lists(st.integers(1, 3), max_size=3).map(tuple),
    batch=st.integers(1, 4),
    chunk_size=st.one_of(st.none(), st.integers(1, 30)),
    seed=SEEDS,
)
def test_divergence_of_a_linear_field_is_the_trace_of_its_matrix(event, batch, chunk_size, seed):
    d = math.prod(event)
    matrix, x = normal(d, d, seed=seed), normal(batch, *event, seed=seed + 1)

    def field(x):
        return (x.reshape(len(x), d) @ matrix.mT).reshape(x.shape)

    torch.testing.assert_close(
        divergence(field, x, chunk_size=chunk_size), matrix.trace().expand(batch), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("chunk_size", [None, 1, 5, 1000])
@pytest.mark.parametrize("event", [(), (4,), (2, 3), (1, 4, 4)])
def test_divergence_is_the_trace_of_the_jacobian_in_any_event_shape(event, chunk_size):
    x = normal(3, *event)
    field = curved if event else torch.sin
    torch.testing.assert_close(divergence(field, x, chunk_size=chunk_size), trace_of_jacobian(field, x), **EXACT)


@pytest.mark.parametrize("chunk_size", [None, 1, 7])
def test_divergence_of_a_convolutional_network_with_attention_is_exact(chunk_size):
    net = UNet(1, width=8, generator=generator()).double()
    torch.nn.init.normal_(net.last.weight, generator=generator())
    x = normal(2, 1, 4, 4)

    def field(x):
        return net(x, 0.3)

    expected = trace_of_jacobian(field, x).detach()
    assert float(expected.abs().min()) > 1e-3
    with torch.no_grad():
        torch.testing.assert_close(divergence(field, x, chunk_size=chunk_size), expected, **EXACT)
    torch.testing.assert_close(divergence(field, x, chunk_size=chunk_size), expected, **EXACT)


@pytest.mark.parametrize("differentiable", [True, False])
def test_many_points_take_several_passes_and_give_the_same(monkeypatch, differentiable):
    x = normal(5, 6)
    with torch.set_grad_enabled(differentiable):
        whole = divergence(curved, x)
        budget = "_NUMBERS_PER_PASS_WITH_GRAPH" if differentiable else "_NUMBERS_PER_PASS"
        monkeypatch.setattr(f"scorebook.score_matching.{budget}", {"cpu": 65})
        torch.testing.assert_close(divergence(curved, x), whole)
        assert passes(6, batch=5, differentiable=differentiable) == 3


@pytest.mark.parametrize("chunk_size", [None, 1, 2, 3])
def test_divergence_can_be_differentiated_twice(chunk_size):
    x = normal(2, 3).requires_grad_()
    net = network(3)

    def function(x):
        return divergence(net, x, chunk_size=chunk_size)

    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)


@pytest.mark.parametrize("chunk_size", [None, 1, 3])
def test_gradients_reach_the_parameters(chunk_size):
    x, net = normal(4, 3), network(3)
    weights = list(net.parameters())[:-1]  # the last bias moves no derivative
    expected = torch.autograd.grad(trace_of_jacobian(net, x).sin().sum(), weights)
    gradients = torch.autograd.grad(divergence(net, x, chunk_size=chunk_size).sin().sum(), weights)
    for gradient, reference in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, reference, **EXACT)


@pytest.mark.parametrize("chunk_size", [None, 1, 2])
def test_a_field_that_ignores_the_point_has_no_divergence(chunk_size):
    parameter = torch.ones(3, dtype=F64, requires_grad=True)
    for field in (torch.zeros_like, lambda x: (2 * parameter).expand(len(x), 3)):
        assert torch.equal(divergence(field, normal(4, 3), chunk_size=chunk_size), torch.zeros(4, dtype=F64))


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_value_and_divergence_come_from_one_call(chunk_size):
    calls = []

    def field(x):
        calls.append(curved(x))
        return calls[-1]

    x = normal(3, 5)
    value, trace = value_and_divergence(field, x, chunk_size=chunk_size)
    assert len(calls) == 1
    assert torch.equal(value, curved(x))
    torch.testing.assert_close(trace, divergence(curved, x))
    (trace.sum() + value.square().sum()).backward()
    assert len(calls) == 1


def passes(dim, *, batch=2, chunk_size=None, differentiable=False):
    """Number of times a gradient enters the field's output."""
    seen = []

    def field(x):
        value = torch.sin(x)
        value.register_hook(lambda gradient: seen.append(1) and None)
        return value

    with torch.set_grad_enabled(differentiable):
        divergence(field, normal(batch, dim), chunk_size=chunk_size)
    return len(seen)


@pytest.mark.parametrize(("chunk_size", "expected"), [(None, 1), (64, 1), (16, 4), (30, 3), (1, 64)])
def test_one_backward_pass_carries_a_chunk_of_dimensions(chunk_size, expected):
    assert passes(64, chunk_size=chunk_size) == expected


class LiveBytes(TorchDispatchMode):
    """The most bytes that were alive at once among those made here."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.known:
                storage = tensor.untyped_storage()
                self.known.add(storage._cdata)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return out

    def _gone(self, name, size):
        self.known.discard(name)
        self.now -= size


def peak_bytes(chunk_size, *, training):
    net = MLP(64, width=128, depth=1, generator=generator())
    x = torch.randn(128, 64, generator=generator())
    with LiveBytes() as memory, torch.set_grad_enabled(training):
        trace = divergence(net, x, chunk_size=chunk_size)
        if training:
            trace.sum().backward()
    return memory.peak


@pytest.mark.parametrize("training", [False, True])
def test_chunk_size_bounds_the_memory(training):
    one = 4 * 128 * 128  # bytes of one gradient at the widest place
    whole, half, eighth = (peak_bytes(size, training=training) for size in (64, 32, 8))
    assert half < 0.7 * whole
    assert eighth < 0.3 * whole
    assert eighth - peak_bytes(4, training=training) < 8 * 4 * one
    assert peak_bytes(4, training=training) < 60 * one


# The losses


@settings(max_examples=30)
@given(dim=st.integers(1, 5), seed=SEEDS)
def test_the_losses_of_a_linear_score_take_their_closed_form(dim, seed):
    mean, covariance, x = gaussian(dim, seed)
    precision, centre = normal(dim, dim, seed=seed + 2), normal(dim, seed=seed + 3)
    model = linear_score(precision, centre)
    half_square = (
        0.5 * (precision @ covariance @ precision.mT).trace() + 0.5 * (precision @ (mean - centre)).square().sum()
    )
    torch.testing.assert_close(implicit_score_matching_loss(model, x), half_square - precision.trace(), **EXACT)
    truth = linear_score(torch.linalg.inv(covariance), mean)
    expected = half_square - precision.trace() + 0.5 * torch.linalg.inv(covariance).trace()
    torch.testing.assert_close(explicit_score_matching_loss(model, x, truth), expected, rtol=1e-8, atol=1e-8)


@settings(max_examples=30)
@given(dim=st.integers(1, 4), seed=SEEDS)
def test_a_gaussian_model_is_best_at_sample_mean_and_inverse_sample_covariance(dim, seed):
    x = normal(dim + 8, dim, seed=seed).exp()
    centre = x.mean(0).requires_grad_()
    precision = torch.linalg.inv((x - x.mean(0)).mT @ (x - x.mean(0)) / len(x)).requires_grad_()
    best = implicit_score_matching_loss(linear_score(precision, centre), x)
    for gradient in torch.autograd.grad(best, (precision, centre)):
        torch.testing.assert_close(
            gradient, torch.zeros_like(gradient), rtol=0, atol=1e-7 * float(precision.detach().norm()) ** 2
        )
    for scale in (0.03, 1.0):
        elsewhere = linear_score(
            precision + scale * normal(dim, dim, seed=seed + 1), centre + scale * normal(dim, seed=seed + 2)
        )
        assert float(implicit_score_matching_loss(elsewhere, x).detach()) > float(best.detach())


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0, 2.0])
def test_explicit_less_implicit_is_the_same_for_every_mixture(shift):
    law = mixture()
    x = law.sample(20_000, generator=generator())
    model = GaussianMixture(law.weights, law.means + shift, law.covariances * (1 + shift)).score
    with torch.no_grad():
        gap = explicit_score_matching_loss(model, x, law.score, reduction="none")
        gap = gap - implicit_score_matching_loss(model, x, reduction="none")
    constant = 0.5 * law.score(x).square().sum(1)
    assert float((gap - constant).std()) > 0.1  # the identity holds in the mean, not point by point
    assert_zero_mean(gap - constant)


@pytest.mark.parametrize("seed", range(4))
def test_explicit_less_implicit_is_the_same_for_every_network(seed):
    law = mixture()
    x = law.sample(20_000, generator=generator())
    net = network(seed=seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3)
        gap = explicit_score_matching_loss(net, x, law.score, reduction="none")
        gap = gap - implicit_score_matching_loss(net, x, reduction="none")
    assert_zero_mean(gap - 0.5 * law.score(x).square().sum(1))


def test_where_the_density_has_an_edge_the_two_losses_part():
    """For the exponential law the boundary term of the integration by parts is theta, and moves the minimum to 0."""
    x = torch.linspace(0.1, 3, 5, dtype=F64)
    for theta in (0.0, 0.5, 2.0):
        explicit = explicit_score_matching_loss(
            lambda x, a=theta: -a * torch.ones_like(x), x, lambda x: -torch.ones_like(x)
        )
        implicit = implicit_score_matching_loss(lambda x, a=theta: -a * torch.ones_like(x), x)
        assert float(explicit) == pytest.approx(0.5 * (theta - 1) ** 2)
        assert float(explicit - implicit) == pytest.approx(0.5 - theta)


@settings(max_examples=30)
@given(dim=st.integers(1, 4), seed=SEEDS)
def test_the_fisher_divergence_of_gaussians_is_the_closed_form_in_either_order(dim, seed):
    (mean_p, covariance_p, x_p), (mean_q, covariance_q, x_q) = gaussian(dim, seed), gaussian(dim, seed + 7)
    precision_p, precision_q = torch.linalg.inv(covariance_p), torch.linalg.inv(covariance_q)
    p, q = linear_score(precision_p, mean_p), linear_score(precision_q, mean_q)

    def closed_form(covariance, other_precision):
        difference = precision_p - precision_q
        shift = (other_precision @ (mean_p - mean_q)).square().sum()
        return (difference @ covariance @ difference.mT).trace() + shift

    options = {"rtol": 1e-7, "atol": 1e-7}
    torch.testing.assert_close(fisher_divergence(p, q, x_p), closed_form(covariance_p, precision_q), **options)
    torch.testing.assert_close(fisher_divergence(q, p, x_q), closed_form(covariance_q, precision_p), **options)


def test_the_fisher_divergence_is_twice_the_explicit_loss_and_zero_for_equal_scores():
    law, other = mixture(), mixture(seed=1)
    x = law.sample(50, generator=generator())
    twice = 2 * explicit_score_matching_loss(other.score, x, law.score)
    torch.testing.assert_close(fisher_divergence(law.score, other.score, x), twice)
    assert float(fisher_divergence(law.score, law.score, x)) == 0


def test_two_far_modes_with_other_weights_have_almost_the_same_score():
    p, q = (GaussianMixture([w, 1 - w], torch.tensor([[-6.0], [6.0]], dtype=F64), 1.0) for w in (0.5, 0.2))
    x = p.sample(5000, generator=generator())
    kl = (p.log_prob(x) - q.log_prob(x)).mean()
    error = (p.log_prob(x) - q.log_prob(x)).std() / math.sqrt(len(x))
    assert abs(float(kl - 0.5 * math.log(0.5 / 0.2) - 0.5 * math.log(0.5 / 0.8))) < 4 * float(error)
    assert float(fisher_divergence(p.score, q.score, x)) < 1e-3


LOSSES = {
    "explicit": lambda model, x, **options: explicit_score_matching_loss(model, x, torch.tanh, **options),
    "implicit": implicit_score_matching_loss,
    "fisher": lambda model, x, **options: fisher_divergence(torch.tanh, model, x, **options),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_images_count_like_vectors_and_the_mean_is_that_of_the_terms(loss):
    x = normal(6, 1, 2, 3)

    def flat_field(v):
        return curved(v.reshape(-1, 1, 2, 3)).flatten(1)

    terms = loss(curved, x, reduction="none")
    assert terms.shape == (6,)
    torch.testing.assert_close(terms, loss(flat_field, x.flatten(1), reduction="none"))
    torch.testing.assert_close(loss(curved, x), terms.mean())
    torch.testing.assert_close(loss(curved, x[:1]), terms[0])


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_the_implicit_loss_trains_an_energy_network_as_the_formula_does(chunk_size):
    """Third derivatives: the gradient in the weights of the trace of a Hessian."""
    x, energy = normal(5, 3), network(3, out_dim=1)
    weights = list(energy.parameters())[:-1]  # the last bias moves no score

    def model(x):
        return score_of(energy, x)

    by_hand = (trace_of_jacobian(model, x) + 0.5 * model(x).square().sum(1)).mean()
    loss = implicit_score_matching_loss(model, x, chunk_size=chunk_size)
    torch.testing.assert_close(loss, by_hand, **EXACT)
    pairs = zip(torch.autograd.grad(loss, weights), torch.autograd.grad(by_hand, weights), strict=True)
    for gradient, reference in pairs:
        torch.testing.assert_close(gradient, reference, **EXACT)


# Bad input

POINTS = torch.zeros(4, 2)
NAN = torch.tensor([[0.0, math.nan]])


def grown(x):
    return torch.cat([x, x], dim=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: score_of(lambda x: x, POINTS),
            r"log_prob must return one number per row, shape \(4,\), got \(4, 2\)",
        ),
        (lambda: score_of(lambda x: x.sum(), POINTS), r"log_prob must return .* got \(\)"),
        (lambda: score_of(lambda x: 0.0, POINTS), r"log_prob must return .* got float"),
        (lambda: score_of(lambda x: x.sum(1), POINTS.long()), r"x must be a floating tensor, got torch.int64"),
        (lambda: score_of(lambda x: x, torch.tensor(1.0)), r"x must have shape \(B, \*event\), got a scalar"),
        (lambda: integrate_score(torch.sin, POINTS, torch.zeros(3)), r"origin must have the shape .* got \(3,\)"),
        (
            lambda: integrate_score(torch.sin, POINTS, POINTS[0], n_nodes=0),
            r"n_nodes must be a positive integer, got 0",
        ),
        (lambda: integrate_score(grown, POINTS, POINTS), r"score must return shape \(4, 2\) .* got \(4, 4\)"),
        (lambda: divergence(grown, POINTS), r"field must return shape \(4, 2\) like its input, got \(4, 4\)"),
        (lambda: divergence(lambda x: 1.0, POINTS), r"field must return a tensor of shape \(4, 2\), got float"),
        (lambda: divergence(torch.sin, POINTS, chunk_size=0), r"chunk_size must be a positive integer, got 0"),
        (lambda: divergence(torch.sin, POINTS.long()), r"x must be a floating tensor, got torch.int64"),
        (lambda: divergence(torch.sin, [1.0]), r"x must be a floating tensor, got list"),
        (lambda: divergence(MLP(3), POINTS), r"x must have shape \(B, 3\), got \(4, 2\)"),
        (lambda: value_and_divergence(grown, POINTS), r"field must return shape"),
        (lambda: implicit_score_matching_loss(grown, POINTS), r"model must return shape \(4, 2\) .* got \(4, 4\)"),
        (
            lambda: implicit_score_matching_loss(torch.sin, POINTS[:0]),
            r"x must hold at least one point, .*\(0, 2\)",
        ),
        (lambda: implicit_score_matching_loss(torch.sin, NAN), r"x must be finite, got nan"),
        (lambda: implicit_score_matching_loss(torch.sin, POINTS, chunk_size=1.5), r"chunk_size must be a positive int"),
        (
            lambda: implicit_score_matching_loss(torch.sin, POINTS, reduction="sum"),
            r"reduction must be one of 'mean', ",
        ),
        (lambda: explicit_score_matching_loss(grown, POINTS, torch.sin), r"model must return shape"),
        (lambda: explicit_score_matching_loss(torch.sin, POINTS, grown), r"score must return shape"),
        (lambda: explicit_score_matching_loss(torch.sin, POINTS[:0], torch.sin), r"x must hold at least one point"),
        (lambda: explicit_score_matching_loss(torch.sin, NAN, torch.sin), r"x must be finite, got nan"),
        (lambda: fisher_divergence(grown, torch.sin, POINTS), r"score_p must return shape"),
        (lambda: fisher_divergence(torch.sin, grown, POINTS), r"score_q must return shape"),
        (lambda: fisher_divergence(torch.sin, torch.sin, NAN), r"x must be finite, got nan"),
        (lambda: fisher_divergence(torch.sin, torch.sin, POINTS, reduction="max"), r"reduction must be one of"),
    ],
)
def test_the_argument_that_is_wrong_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
