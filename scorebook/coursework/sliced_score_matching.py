r"""A check of random projections: their second moments, and that points share none.

.. math:: E[v v^T] = I

is all that a sliced loss needs of the law of its directions; which law it is decides on the noise alone.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from scorebook.coursework.guard import Refusal, Student, under_guard
from scorebook.coursework.problems import child, seeded
from scorebook.coursework.reports import Answer, Mistake, Report, judge, slips
from scorebook.lab.arguments import standard_normal
from scorebook.lab.types import Integer, Number

__all__ = ["check_projections"]

_DOUBLE = torch.float64
# Correlations of independent draws lie within this many standard errors of 0.
_SURE = 6.5


def check_projections(draw: Callable[..., Any], *, seed: Integer = 0, time_limit: Number | None = 30.0) -> Report:
    r"""Hold random projections against the moments that they must have.

    .. math:: E[v v^T] = I

    Any such law will do: normal numbers, random signs, the sphere of radius :math:`\sqrt d`, a coordinate times
    :math:`\sqrt d`. Each point has directions of its own, and each of the ``n`` is drawn anew.

    Args:
        draw: the student's callable ``draw(x, n, *, generator) -> (n, B, d)``, with ``x`` of shape ``(B, d)``. It may
            do without ``generator``.
        seed: of points and directions.
        time_limit: processor seconds for the student's code; None for no limit.

    Returns:
        The report.

    Source: Hutchinson (1990); Song et al. (2019), section 3.
    """
    student = Student(
        "draw(x, n, generator=generator)",
        ("Sliced score matching", "What breaks without the square, without the half, without the $\\sqrt d$"),
    )
    generator = seeded(seed)

    def check():
        n, b, d = 4, 4096, 5
        x = standard_normal((b, d), generator=generator, dtype=_DOUBLE)

        def drawn():
            return student.tensor(
                student.call(draw, x.clone(), n, generator=child(generator)), (n, b, d), "the projections"
            )

        v = drawn()
        _refuse_shared(v, drawn())
        flat = v.reshape(-1, d)
        second = flat.mT @ flat / len(flat)
        off = second[~torch.eye(d, dtype=torch.bool)]
        ones, error = torch.ones(d, dtype=_DOUBLE), len(flat) ** -0.5
        # Of the laws that will do, a coordinate times √d has the greatest fourth moment, d.
        spread, right = flat.square().std(0) * error, (d - 1) ** 0.5 * error
        answers = [
            Answer("mean square of each coordinate", second.diagonal(), ones, spread, 1e-9, right),
            Answer("mean product of two coordinates", off, 0 * off, error * flat.square().mean(), 1e-9, error),
        ]
        # Which axes a norm was taken along, so that it is the same for all along the others.
        norms = [v.norm(dim=axis) for axis in range(3)]
        same = [bool(norm.std() < 1e-6 * norm.mean()) for norm in norms]
        sizes = [v.shape[axis] for axis in (0, 1) if same[axis] and not same[2]]  # of signs it is the same along all
        return judge("check_projections", answers, _mistaken(sizes, d), verified="your projections have E[v vᵀ] = I")

    return under_guard("check_projections", check, student, time_limit=time_limit)


def _mistaken(sizes, d) -> list[Mistake]:
    def formula(square=1.0, product=0.0):
        return {
            "mean square of each coordinate": torch.full((d,), square, dtype=_DOUBLE),
            "mean product of two coordinates": torch.full((d * (d - 1),), product, dtype=_DOUBLE),
        }

    rand, bits = {"square": 1 / 3, "product": 0.25}, {"square": 0.5, "product": 0.25}
    return slips(
        formula,
        [
            (
                "unit_projections",
                "they have length 1, or were divided by √d, and so E[v vᵀ] = I/d; multiply by √d",
                {"square": 1 / d},
            ),
            (
                "uniform_symmetric",
                "they are uniform on [−1, 1], whose variance is 1/3; multiply by √3",
                {"square": 1 / 3},
            ),
            ("uniform_symmetric", "they are uniform on [−½, ½], whose variance is 1/12", {"square": 1 / 12}),
            (
                "sparse_signs",
                "they have variance 2/3, as those drawn from −1, 0 and 1 do; multiply by √(3/2)",
                {"square": 2 / 3},
            ),
            *(
                (
                    "coupled",
                    "they are divided by their norm along an axis that runs over other directions; that of one "
                    "direction is the last, dim=-1",
                    {"square": scale / size},
                )
                for size in sizes
                for scale in (1.0, float(d))
            ),
            (
                "uniform_projections",
                "they are drawn with rand, uniform on [0, 1]: neither centred nor of variance 1",
                rand,
            ),
            ("uniform_projections", "they hold zeros and ones; signs are ±1", bits),
            ("wrong_norm", "they have length d, or were multiplied by √d, and so E[v vᵀ] = d I", {"square": float(d)}),
            ("one_direction", "all coordinates of a direction are the same number, as in (1, …, 1)", {"product": 1.0}),
        ],
    )


def _refuse_shared(v: Tensor, other: Tensor) -> None:
    """Refuse directions that points, lots or calls share."""
    n, b, _ = v.shape
    centred = v - v.mean((0, 1))
    if bool((v == v[0, 0]).all()):
        return  # no draw at all: the moments say so
    if torch.equal(v, other):
        raise Refusal(
            "two calls with different seeds got the same directions: a seed is set inside your function, so draw from "
            "the generator that you are given",
            "fixed_seed",
        )
    if bool((v - v[:, :1]).abs().max() < 1e-12):
        raise Refusal(
            "all points of the batch get the same direction, and their errors do not average out: draw it in the shape "
            "of x",
            "shared_projection",
        )
    if n > 1 and bool((v - v[:1]).abs().max() < 1e-12):
        raise Refusal(f"the {n} directions of a point are one and the same: draw each anew", "same_projection")
    for lag in (1, 2, b // 4, b // 2):
        pair = torch.stack([centred[:, lag:].flatten(), centred[:, :-lag].flatten()])
        if torch.corrcoef(pair)[0, 1].abs() > _SURE / pair.shape[1] ** 0.5:
            raise Refusal(
                f"points 0 and {lag} of a batch get the same direction, and so do all that lie {lag} apart: draw it in "
                "the shape of x",
                "shared_projection",
            )
