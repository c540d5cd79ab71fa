import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scorebook import lab
from scorebook.score_matching import divergence, implicit_score_matching_loss
from scorebook.sliced_score_matching import random_projections, sliced_divergence, sliced_score_matching_loss

KINDS = ["rademacher", "gaussian", "sphere"]
FORMS = pytest.mark.parametrize("variance_reduced", [False, True], ids=["plain", "reduced"])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def minus(x):
    return -x


def linear(matrix):
    return lambda x: x @ matrix.mT


def curved(x):
    """A field that is no gradient, with every entry of its Jacobian different from point to point."""
    flat = x.reshape(len(x), -1)
    mixed = flat.roll(1, dims=1) * flat.sin() + 0.3 * flat.square().sum(1, keepdim=True)
    return (mixed - 0.5 * flat**3).reshape(x.shape)


def jacobian(field, x):
    """Jacobian of each row, shape (B, d, d), one row of the batch after the other."""
    rows = [torch.autograd.functional.jacobian(lambda r: field(r[None])[0], row) for row in x]
    n_dims = x[0].numel()
    return torch.stack(rows).reshape(len(x), n_dims, n_dims)


def within_four_errors(values, expected):
    """Whether a sample mean agrees with its expectation."""
    error = values.std(0) / len(values) ** 0.5
    return bool(((values.mean(0) - expected).abs() <= 4 * error + 1e-12).all())


dims = st.integers(1, 6)
seeds = st.integers(0, 10_000)


# random_projections


@pytest.mark.parametrize("kind", KINDS)
def test_directions_have_the_identity_as_second_moment_and_no_mean(kind):
    v = random_projections(torch.empty(1, 2, 2, dtype=torch.float64), 40_000, kind=kind, generator=generator())
    flat = v.reshape(-1, 4)
    assert within_four_errors(flat, torch.zeros(4, dtype=torch.float64))
    assert within_four_errors(flat[:, :, None] * flat[:, None], torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS)
def test_directions_of_different_points_and_numbers_are_independent(kind):
    v = random_projections(torch.empty(20_000, 3, dtype=torch.float64), 2, kind=kind, generator=generator(1))
    zero = torch.zeros(3, dtype=torch.float64)
    assert within_four_errors(v[0] * v[1], zero)
    assert within_four_errors(v[0, ::2] * v[0, 1::2], zero)


@given(st.integers(1, 4), st.integers(1, 5), dims, seeds)
def test_signs_are_signs_and_the_sphere_has_radius_root_d(n, batch, dim, seed):
    x = torch.empty(batch, dim, dtype=torch.float64)
    signs = random_projections(x, n, kind="rademacher", generator=generator(seed))
    sphere = random_projections(x, n, kind="sphere", generator=generator(seed))
    assert signs.shape == sphere.shape == (n, batch, dim)
    assert bool((signs.abs() == 1).all())
    torch.testing.assert_close(sphere.norm(dim=2), torch.full((n, batch), math.sqrt(dim), dtype=torch.float64))


@pytest.mark.parametrize("dim", [2, 5])
def test_quadratic_forms_have_the_variances_of_the_docstring(dim):
    matrix = normal(dim, dim, seed=4)
    symmetric = (matrix + matrix.T) / 2
    frobenius, trace = symmetric.square().sum(), symmetric.trace()
    expected = {
        "gaussian": 2 * frobenius,
        "rademacher": 2 * frobenius - 2 * symmetric.diagonal().square().sum(),
        "sphere": 2 * dim / (dim + 2) * (frobenius - trace**2 / dim),
    }
    for kind, variance in expected.items():
        v = random_projections(torch.empty(1, dim, dtype=torch.float64), 100_000, kind=kind, generator=generator())
        forms = ((v[:, 0] @ matrix) * v[:, 0]).sum(1)
        assert within_four_errors(forms, trace)
        assert within_four_errors((forms - trace).square(), variance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_directions_take_their_type_from_the_points_and_their_numbers_from_the_generator(kind, dtype):
    x = torch.empty(3, 2, dtype=dtype)
    before = torch.get_rng_state()
    v, again = (random_projections(x, 5, kind=kind, generator=generator(7)) for _ in range(2))
    assert v.dtype == dtype
    assert torch.equal(v, again)
    assert torch.equal(torch.get_rng_state(), before)


# sliced_divergence


@given(dims, seeds)
def test_a_slice_is_the_quadratic_form_of_the_jacobian(dim, seed):
    x, v = normal(4, dim, seed=seed), normal(4, dim, seed=seed + 1)
    expected = torch.einsum("bi,bij,bj->b", v, jacobian(curved, x), v)
    torch.testing.assert_close(sliced_divergence(curved, x, v), expected)


@given(st.integers(1, 4), seeds)
def test_the_mean_over_all_signs_is_the_divergence(dim, seed):
    x = normal(3, dim, seed=seed)
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=dim)), dtype=torch.float64)
    slices = torch.stack([sliced_divergence(curved, x, sign.expand_as(x)) for sign in signs])
    torch.testing.assert_close(slices.mean(0), divergence(curved, x))


@given(dims, seeds)
def test_the_slice_along_an_axis_is_one_entry_of_the_diagonal(dim, seed):
    x = normal(3, dim, seed=seed)
    axes = torch.eye(dim, dtype=torch.float64)
    slices = torch.stack([sliced_divergence(curved, x, axis.expand_as(x)) for axis in axes], dim=1)
    torch.testing.assert_close(slices, jacobian(curved, x).diagonal(dim1=1, dim2=2))


@given(dims, seeds)
def test_a_slice_sees_the_symmetric_part_only(dim, seed):
    matrix, x, v = normal(dim, dim, seed=seed), normal(3, dim, seed=seed), normal(3, dim, seed=seed + 1)
    torch.testing.assert_close(
        sliced_divergence(linear(matrix), x, v), sliced_divergence(linear((matrix + matrix.T) / 2), x, v)
    )
    turning = sliced_divergence(linear(matrix - matrix.T), x, v)
    torch.testing.assert_close(turning, torch.zeros_like(turning))


@pytest.mark.parametrize("event", [(), (4,), (2, 3), (1, 2, 2)])
def test_any_event_shape_will_do(event):
    x, v = normal(5, *event), normal(5, *event, seed=1)
    slices = sliced_divergence(curved, x, v)
    assert slices.shape == (5,)
    flat_x, flat_v = x.reshape(5, -1), v.reshape(5, -1)
    torch.testing.assert_close(slices, sliced_divergence(curved, flat_x, flat_v))


def test_a_slice_can_be_differentiated_in_the_point_and_in_the_parameters():
    matrix = normal(3, 3).requires_grad_()
    x, v = normal(2, 3).requires_grad_(), normal(2, 3, seed=1)

    def through(x, matrix):
        return sliced_divergence(lambda y: (y @ matrix).tanh(), x, v)

    assert torch.autograd.gradcheck(through, (x, matrix))


def test_without_gradients_a_slice_is_a_plain_tensor_of_the_same_value():
    network = lab.MLP(3, width=8, generator=generator()).double()
    x, v = normal(4, 3), normal(4, 3, seed=1)
    with_graph = sliced_divergence(network, x, v)
    with torch.no_grad():
        plain = sliced_divergence(network, x, v)
    assert with_graph.requires_grad
    assert not plain.requires_grad
    torch.testing.assert_close(plain, with_graph.detach())


@pytest.mark.parametrize("enabled", [True, False])
def test_the_extra_backward_pass_is_recorded_only_where_gradients_are_wanted(enabled):
    recorded = []

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, gradient):
            recorded.append(torch.is_grad_enabled())
            return 2 * gradient

    with torch.set_grad_enabled(enabled):
        sliced_divergence(Watched.apply, normal(3, 2), normal(3, 2))
    assert recorded == [enabled]


@pytest.mark.parametrize("field", [lambda x: torch.ones_like(x), lambda x: torch.zeros(3, 2)])
def test_a_field_that_does_not_move_with_the_point_has_no_divergence(field):
    assert sliced_divergence(field, normal(3, 2), normal(3, 2)).tolist() == [0, 0, 0]


# sliced_score_matching_loss


@FORMS
@given(st.integers(1, 3), seeds)
def test_on_the_line_with_signs_the_sliced_loss_is_the_exact_one(variance_reduced, n_projections, seed):
    x = normal(6, 1, seed=seed)
    sliced = sliced_score_matching_loss(
        curved, x, n_projections=n_projections, variance_reduced=variance_reduced, reduction="none"
    )
    torch.testing.assert_close(sliced, implicit_score_matching_loss(curved, x, reduction="none"))


@pytest.mark.parametrize("kind", ["rademacher", "sphere"])
@given(dims, seeds)
def test_signs_and_sphere_are_exact_where_the_jacobian_is_a_multiple_of_the_identity(kind, dim, seed):
    x = normal(4, dim, seed=seed)
    sliced = sliced_score_matching_loss(lambda x: 3 - 2 * x, x, kind=kind, generator=generator(seed), reduction="none")
    torch.testing.assert_close(sliced, implicit_score_matching_loss(lambda x: 3 - 2 * x, x, reduction="none"))


@FORMS
@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_over_directions_is_the_exact_loss(kind, variance_reduced):
    points = normal(3, 4, seed=5)
    repeated = points.repeat_interleave(20_000, dim=0)
    terms = sliced_score_matching_loss(
        curved, repeated, kind=kind, variance_reduced=variance_reduced, generator=generator(), reduction="none"
    )
    exact = implicit_score_matching_loss(curved, points, reduction="none")
    assert within_four_errors(terms.reshape(3, 20_000).T, exact)


@FORMS
@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_of_the_gradient_is_the_exact_gradient(kind, variance_reduced):
    x = normal(10, 3, seed=2)
    theta = normal(3, 3, seed=3).requires_grad_()

    def model(x):
        return (x @ theta).tanh()

    (exact,) = torch.autograd.grad(implicit_score_matching_loss(model, x), theta)
    gradients = []
    source = generator(8)
    for _ in range(500):
        loss = sliced_score_matching_loss(
            model, x, n_projections=2, kind=kind, variance_reduced=variance_reduced, generator=source
        )
        gradients.append(torch.autograd.grad(loss, theta)[0])
    assert within_four_errors(torch.stack(gradients), exact)


@FORMS
@pytest.mark.parametrize("kind", KINDS)
def test_the_best_scale_of_a_linear_model_is_the_inverse_variance_of_the_data(kind, variance_reduced):
    # The loss of s = -theta x is -a theta + b theta^2 / 2 with E a = d and E b = d E x_i^2: the optimum is a / b.
    x = 2 * normal(50_000, 5)

    def terms(theta):
        return sliced_score_matching_loss(
            lambda x: -theta * x,
            x,
            kind=kind,
            variance_reduced=variance_reduced,
            generator=generator(9),
            reduction="none",
        )

    at_one, at_minus_one = terms(1.0), terms(-1.0)
    a, b = (at_minus_one - at_one) / 2, at_one + at_minus_one
    ratio = (a.mean() / b.mean()).item()
    error = ((a - ratio * b).std() / b.mean() / len(x) ** 0.5).item()
    assert abs(ratio - 0.25) < 4 * error
    assert error < 0.01


def closed_form_variance(kind, variance_reduced, dim):
    if kind == "gaussian":
        return 5 * dim / 2 if variance_reduced else dim**2 / 2 + 3 * dim / 2
    return dim / 2 if variance_reduced else dim**2 / 2


@FORMS
@pytest.mark.parametrize("dim", [2, 10, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_the_variance_at_the_optimum_is_that_of_the_closed_form(kind, dim, variance_reduced):
    x = normal(10_000, dim, seed=6)
    terms = sliced_score_matching_loss(
        minus, x, kind=kind, variance_reduced=variance_reduced, generator=generator(dim), reduction="none"
    )
    assert within_four_errors(terms, -dim / 2)
    assert within_four_errors((terms + dim / 2).square(), closed_form_variance(kind, variance_reduced, dim))


@pytest.mark.parametrize("n_projections", [1, 4])
@pytest.mark.parametrize("kind", ["rademacher", "sphere"])
def test_more_directions_remove_the_part_of_the_variance_that_is_theirs(kind, n_projections):
    dim = 8
    terms = sliced_score_matching_loss(
        minus,
        normal(40_000, dim, seed=7),
        n_projections=n_projections,
        kind=kind,
        variance_reduced=False,
        generator=generator(1),
        reduction="none",
    )
    assert within_four_errors((terms + dim / 2).square(), dim / 2 + (dim**2 - dim) / (2 * n_projections))


@FORMS
@pytest.mark.parametrize("event", [(), (4,), (2, 3), (1, 2, 2)])
def test_the_loss_takes_any_event_shape(event, variance_reduced):
    x = normal(5, *event)
    options = {"variance_reduced": variance_reduced, "n_projections": 3}
    loss = sliced_score_matching_loss(curved, x, generator=generator(), **options)
    flat = sliced_score_matching_loss(curved, x.reshape(5, -1), generator=generator(), **options)
    assert loss.shape == ()
    torch.testing.assert_close(loss, flat)


@FORMS
def test_the_loss_is_the_mean_of_its_terms_and_those_are_row_by_row(variance_reduced):
    network = lab.MLP(3, width=8, generator=generator()).double()
    x = normal(6, 3)
    options = {"variance_reduced": variance_reduced, "n_projections": 2}
    terms = sliced_score_matching_loss(network, x, generator=generator(), reduction="none", **options)
    torch.testing.assert_close(sliced_score_matching_loss(network, x, generator=generator(), **options), terms.mean())
    moved = torch.cat([x[:1], 5 + x[1:]])
    others = sliced_score_matching_loss(network, moved, generator=generator(), reduction="none", **options)
    torch.testing.assert_close(others[0], terms[0])
    assert not torch.isclose(others[1], terms[1])


def test_the_model_is_called_once_whatever_the_number_of_directions():
    calls = []

    def model(x):
        calls.append(x.shape)
        return -x

    sliced_score_matching_loss(model, normal(4, 3), n_projections=7)
    assert calls == [(4, 3)]


def test_without_gradients_the_loss_is_a_plain_number():
    network = lab.MLP(3, width=8, generator=generator()).double()
    with torch.no_grad():
        plain = sliced_score_matching_loss(network, normal(4, 3), generator=generator())
    trained = sliced_score_matching_loss(network, normal(4, 3), generator=generator())
    assert not plain.requires_grad
    torch.testing.assert_close(plain, trained.detach())
    trained.backward()
    # The constant that the last layer adds moves the value of the field and not its Jacobian.
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in network.parameters())


def test_the_loss_keeps_the_type_of_the_points():
    x = normal(4, 3, dtype=torch.float32)
    assert sliced_score_matching_loss(minus, x).dtype == torch.float32
    assert sliced_score_matching_loss(minus, x.double()).dtype == torch.float64


# What is refused


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"n_projections": 0}, "n_projections must be a positive integer, got 0"),
        ({"n_projections": -1}, "n_projections must be a positive integer"),
        ({"n_projections": 1.5}, "n_projections must be a positive integer"),
        ({"kind": "uniform"}, "kind must be one of 'rademacher', 'gaussian', 'sphere', got 'uniform'"),
        ({"reduction": "sum"}, "reduction must be one of"),
        ({"x": torch.empty(0, 2)}, "x must hold at least one point"),
        ({"x": torch.tensor([[0.0, math.nan]])}, "x must be finite, got nan"),
        ({"x": torch.tensor([[0.0, math.inf]])}, "x must be finite, got inf"),
        ({"x": torch.ones(3, 2, dtype=torch.int64)}, "x must be a floating tensor, got torch.int64"),
        ({"x": [[1.0, 2.0]]}, "x must be a floating tensor, got list"),
        ({"x": torch.tensor(1.0)}, r"x must have shape \(B, \*event\)"),
        ({"model": lambda x: x[:, :1]}, r"model must return shape \(3, 2\) like its input, got \(3, 1\)"),
        ({"model": lambda x: x.sum(1)}, "model must return shape"),
        ({"model": lambda x: 1.0}, "model must return a tensor"),
        ({"model": lab.MLP(3)}, r"x must have shape \(B, 3\)"),
    ],
)
def test_a_loss_of_something_else_is_refused(arguments, match):
    model, x = arguments.pop("model", minus), arguments.pop("x", torch.ones(3, 2))
    with pytest.raises(ValueError, match=match):
        sliced_score_matching_loss(model, x, **arguments)


@pytest.mark.parametrize(
    ("field", "x", "v", "match"),
    [
        (minus, torch.ones(3, 2), torch.ones(2), r"v must have shape \(3, 2\) like x, got \(2,\)"),
        (minus, torch.ones(3, 2), torch.ones(1, 3, 2), "v must have shape"),
        (lambda x: x.sum(1), torch.ones(3, 2), torch.ones(3, 2), "field must return shape"),
        (minus, torch.ones(3, 2, dtype=torch.int64), torch.ones(3, 2), "x must be a floating tensor"),
    ],
)
def test_a_slice_of_something_else_is_refused(field, x, v, match):
    with pytest.raises(ValueError, match=match):
        sliced_divergence(field, x, v)


@pytest.mark.parametrize(
    ("x", "n", "kind", "match"),
    [
        (torch.ones(3, 2), 0, "rademacher", "n must be a positive integer"),
        (torch.ones(3, 2), True, "rademacher", "n must be a positive integer"),
        (torch.ones(3, 2), 1, "Gaussian", "kind must be one of"),
        (torch.ones(3, 2, dtype=torch.int64), 1, "gaussian", "x must be a floating tensor"),
        (torch.tensor(1.0), 1, "gaussian", "x must have shape"),
    ],
)
def test_directions_of_an_unknown_kind_or_number_are_refused(x, n, kind, match):
    with pytest.raises(ValueError, match=match):
        random_projections(x, n, kind=kind)
