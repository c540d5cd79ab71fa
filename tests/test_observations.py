"""Linear observations are held to dense algebra, to autograd and to the density of their noise."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scorebook.lab.observations import LinearObservation

F64 = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=1, dtype=F64):
    return torch.randn(shape, generator=generator(seed), dtype=dtype)


def blur(n=6):
    """Circular blur of a row of ``n`` pixels and every second pixel of it, as callables, and as the matrix."""
    kernel = torch.tensor([0.2, 0.5, 0.3], dtype=F64)

    def smear(x, shift):
        return sum(w * x.roll(shift * (k - 1), -1) for k, w in enumerate(kernel))

    def forward(x):
        return smear(x, 1)[..., ::2]

    def adjoint(y):
        spread = torch.zeros(*y.shape[:-1], n, dtype=y.dtype)
        spread[..., ::2] = y
        return smear(spread, -1)

    return forward, adjoint, forward(torch.eye(n, dtype=F64)).mT


@settings(max_examples=20)
@given(seed=st.integers(0, 100), variance=st.floats(0.0, 10.0), noise_std=st.floats(0.05, 3.0))
def test_weighing_a_residual_solves_with_its_covariance(seed, variance, noise_std):
    forward, adjoint, matrix = blur()
    residual = normal(4, 3, seed=seed)
    each = torch.linspace(0, 1, 4, dtype=F64) * variance
    for v in (torch.tensor(variance, dtype=F64), each):
        covariance = v.reshape(-1, 1, 1) * matrix @ matrix.mT + noise_std**2 * torch.eye(3, dtype=F64)
        expected = torch.linalg.solve(covariance, residual.unsqueeze(-1)).squeeze(-1)
        for operator in (matrix, (forward, adjoint)):
            got = LinearObservation(operator, residual[:1], noise_std).solve(residual, v)
            torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-8)


def test_conjugate_gradients_are_as_accurate_for_a_small_row_as_for_a_large_one_beside_it():
    forward, adjoint, matrix = blur()
    residual = normal(4, 3) * torch.tensor([[1e8], [1.0], [1e-8], [0.0]], dtype=F64)
    variance = torch.tensor([0.1, 5.0, 30.0, 1.0], dtype=F64)  # other spectra, so that no row solves another's equation
    got = LinearObservation((forward, adjoint), residual[:1], 0.3).solve(residual, variance)
    expected = LinearObservation(matrix, residual[:1], 0.3).solve(residual, variance)
    assert bool(((got - expected).norm(dim=1) <= 1e-10 * expected.norm(dim=1)).all())


def test_images_are_observed_by_a_matrix_as_by_callables():
    matrix, x = normal(5, 12), normal(3, 1, 3, 4)
    pair = (lambda x: x.flatten(1) @ matrix.mT, lambda y: (y @ matrix).reshape(-1, 1, 3, 4))
    y = normal(5, seed=2)
    by_matrix, by_pair = (LinearObservation(operator, y[None], 0.3) for operator in (matrix, pair))
    torch.testing.assert_close(by_matrix.predict(x), x.flatten(1) @ matrix.mT)
    torch.testing.assert_close(by_matrix.residual(x), y - by_pair.predict(x))
    expected = torch.distributions.Normal(x.flatten(1) @ matrix.mT, 0.3).log_prob(y).sum(1)
    for seen in (by_matrix, by_pair):
        torch.testing.assert_close(seen.log_likelihood(x), expected)


FORWARD, ADJOINT, MATRIX = blur()


@pytest.mark.parametrize(
    "pair",
    [
        (FORWARD, lambda y: 1.001 * ADJOINT(y)),
        (FORWARD, lambda y: ADJOINT(y).roll(1, -1)),
        (lambda x: FORWARD(x) + 0.1, ADJOINT),
        (lambda x: FORWARD(x) ** 3, ADJOINT),
        (lambda x: FORWARD(x).flip(0), ADJOINT),
    ],
    ids=["scaled", "shifted", "affine", "cubed", "rows mixed"],
)
def test_an_adjoint_that_is_not_one_is_refused(pair):
    with pytest.raises(ValueError, match="adjoint"):
        LinearObservation(pair, normal(1, 3), 0.1)


def test_the_adjoint_is_accepted_in_either_precision():
    matrix = normal(30, 200, dtype=torch.float32)
    LinearObservation((lambda x: x @ matrix.mT, lambda y: y @ matrix), normal(1, 30, dtype=torch.float32), 0.1)
    LinearObservation((FORWARD, ADJOINT), normal(1, 3), 0.1)


# Points that are numbers


@pytest.mark.parametrize("observed", [(), (1,), (2, 3)])
@pytest.mark.parametrize("event", [(), (1,), (2, 2)])
def test_a_map_of_any_event_to_any_other_is_that_of_its_matrix(event, observed):
    d, m = math.prod(event), math.prod(observed)
    matrix = normal(m, d)

    def forward(x):
        return (x.reshape(len(x), d) @ matrix.mT).reshape(len(x), *observed)

    def adjoint(w):
        return (w.reshape(len(w), m) @ matrix).reshape(len(w), *event)

    x, y = normal(4, *event, seed=2), normal(4, *observed, seed=3)
    dense = LinearObservation(matrix, y.reshape(4, m), 0.3)
    alone = LinearObservation(forward, y, 0.3, event_shape=event)
    for seen in (LinearObservation((forward, adjoint), y, 0.3), alone):
        torch.testing.assert_close(seen.residual(x), dense.residual(x).reshape(y.shape))
        torch.testing.assert_close(seen.log_likelihood(x), dense.log_likelihood(x))
        torch.testing.assert_close(seen.solve(y, 2.0), dense.solve(y.reshape(4, m), 2.0).reshape(y.shape))


def test_the_matrix_is_told_where_there_is_one():
    assert torch.equal(LinearObservation(MATRIX, normal(3), 0.1).matrix, MATRIX)
    assert LinearObservation((FORWARD, ADJOINT), normal(1, 3), 0.1).matrix is None


# Bad input


def score(x, t):
    return -x


POINTS = normal(4, 3)
OBSERVATION = LinearObservation(normal(2, 3), normal(2), 0.1)


@pytest.mark.parametrize(
    ("match", "call"),
    [
        ("variance", lambda: OBSERVATION.solve(normal(4, 2), -1.0)),
        ("noise_std", lambda: LinearObservation(normal(2, 3), normal(2), 0.0)),
        ("noise_std", lambda: LinearObservation(normal(2, 3), normal(2), -0.1)),
        ("noise_std", lambda: LinearObservation(normal(2, 3), normal(2), torch.tensor([0.1, 0.2]))),
        ("operator", lambda: LinearObservation(normal(2, 3, 1), normal(2), 0.1)),
        ("operator", lambda: LinearObservation(normal(2, 3), normal(3), 0.1)),
        ("operator", lambda: LinearObservation(lambda x: x, normal(1, 3), 0.1)),
        ("operator", lambda: LinearObservation(torch.full((2, 3), math.nan), normal(2), 0.1)),
        ("operator", lambda: OBSERVATION.predict(normal(4, 5))),
        ("operator", lambda: LinearObservation((lambda x: x[:, :1], lambda y: y), normal(1, 3), 0.1)),
        ("adjoint", lambda: LinearObservation((lambda x: x, lambda y: y[0]), normal(1, 3), 0.1)),
        ("y must", lambda: LinearObservation((torch.neg, torch.neg), normal(1)[0], 0.1)),
        ("y must", lambda: LinearObservation(normal(2, 3), torch.tensor([math.nan, 1.0]), 0.1)),
        ("y must", lambda: LinearObservation(normal(2, 3), torch.ones(2, dtype=torch.int64), 0.1)),
        ("y must", lambda: LinearObservation(normal(2, 3), normal(5, 2), 0.1).residual(POINTS)),
    ],
)
def test_bad_input_is_named(match, call):
    with pytest.raises(ValueError, match=match):
        call()


@pytest.mark.parametrize("share", [1e-4, -1e-4])
def test_an_adjoint_that_is_off_by_little_is_refused(share):
    forward, adjoint, _ = blur()
    with pytest.raises(ValueError, match="must agree"):
        LinearObservation((forward, lambda y: (1 + share) * adjoint(y)), normal(1, 3), 0.3)


@pytest.mark.parametrize("back", [[1.0, 2.0], 3.0, torch.tensor(3.0), torch.zeros(5, 6)])
def test_an_adjoint_that_returns_no_rows_of_points_is_refused(back):
    forward, _, _ = blur()
    with pytest.raises(ValueError, match="the adjoint of operator must return shape"):
        LinearObservation((forward, lambda y: back), normal(1, 3), 0.3)


def test_a_number_that_is_hardly_seen_hides_no_wrong_adjoint():
    scale = torch.tensor([1.0, 1.0, 1e-9], dtype=F64)
    with pytest.raises(ValueError, match="must agree"):
        LinearObservation((lambda x: scale * x, lambda y: 2 * scale * y), normal(1, 3), 0.3)


def test_conjugate_gradients_take_as_many_steps_as_the_observation_has_numbers():
    spectrum = torch.logspace(-1, 1, 60, dtype=F64)
    residual = normal(2, 60)
    got = LinearObservation((lambda x: x * spectrum, lambda y: y * spectrum), residual[:1], 0.05).solve(residual, 1.0)
    torch.testing.assert_close(got, residual / (spectrum**2 + 0.05**2), rtol=1e-8, atol=1e-8)


def test_transforms_go_through_a_map_that_autograd_goes_through():
    forward, adjoint, matrix = blur()
    seen, x = LinearObservation((forward, adjoint), normal(1, 3), 0.3), normal(2, 6)
    pushed = torch.func.jvp(seen.predict, (x,), (x,))[1]
    torch.testing.assert_close(pushed, x @ matrix.mT)


def test_conjugate_gradients_that_do_not_converge_say_so():
    wild = torch.diag(torch.logspace(0, 12, 20, dtype=torch.float32))
    seen = LinearObservation((lambda x: x @ wild, lambda y: y @ wild), torch.ones(1, 20), 1e-6)
    with pytest.raises(RuntimeError, match="noise_std"):
        seen.solve(torch.randn(2, 20, generator=generator()), 1.0)
