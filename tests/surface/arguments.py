"""The surface of ``scorebook.lab.arguments``."""

from scorebook.lab import arguments
from surface import Call, Data, generator, labels, per_row, points


def read_together(x):
    """Points whose values are looked at in one read."""
    with arguments.one_read():
        arguments.finite("x", x)
        arguments.non_negative("x", x * x)
    return x


OTHER = Data(lambda random, n, event: random.standard_normal((4, *event)), rows=False)

CALLS = {
    "some_points": Call(lambda x: arguments.some_points("x", x) or x, x=points(), by_row=True),
    "two_samples": Call(lambda x, y: arguments.two_samples("x", x, "y", y), x=points(), y=OTHER, dtype_of="widest"),
    "unit_time": Call(lambda t: arguments.unit_time(t), t=per_row(0.0, 1.0), by_row=True),
    "expand": Call(lambda value, x: arguments.expand(value, x) * x, value=per_row(0.1, 2.0), x=points(), by_row=True),
    "finite": Call(lambda x: arguments.finite("x", x) or x, x=points(), by_row=True),
    "non_negative": Call(lambda x: arguments.non_negative("x", x) or x, x=per_row(0.0, 2.0), by_row=True),
    "positive": Call(lambda x: arguments.positive("x", x) or x, x=per_row(0.1, 2.0), by_row=True),
}

NO_DATA = {
    "one_read": "takes nothing",
    "require": "takes what a check has found",
    "fits": "compares shapes; what the tensors hold is not looked at",
    "levels": "changes the dtype of whatever it is given",
    "sum_over_event": "adds up what has been checked",
    "vectors": "changes the shape of what has been checked",
    "at_least_single": "changes the dtype of whatever tensor it is given",
    "as_given": "takes whatever it is given",
    "as_floating": "changes the dtype of whatever it is given",
    "boolean": "the check of dtypes itself",
    "double": "changes the dtype of whatever tensor it is given",
    "inner_time": "takes one number",
    "one_per_row": "compares shapes; what the tensors hold is not looked at",
    "uniform": "takes a shape",
    "batch": "the check of dtype and shape itself",
    "floating": "the check of dtypes itself",
    "integers": "the check of dtypes itself",
    "one_of": "takes a name",
    "positive_integer": "takes a whole number",
    "real": "the check of dtypes itself",
    "recordable": "takes whatever tensor it is given",
    "same_shape": "compares shapes; what the tensors hold is not looked at",
    "standard_normal": "takes a shape",
    "still_finite": "raises a RuntimeError, for numbers that the caller did not give",
}

WITHOUT_DATA = {
    "one_read": Call(read_together, x=points()),
    "require": Call(lambda x: arguments.require((x * 0 == 0).all(), ValueError) or x, x=points()),
    "fits": Call(lambda x: arguments.fits("mask", x[0], x) or x, x=points()),
    "levels": Call(lambda x: arguments.levels("t", 0.5, x), x=points(), own_dtype=True),
    "sum_over_event": Call(lambda x: arguments.sum_over_event(x), x=points()),
    "vectors": Call(lambda x: arguments.vectors(x), x=points()),
    "as_floating": Call(lambda x: arguments.as_floating("x", x), x=points()),
    "boolean": Call(lambda label: arguments.boolean("mask", label > 0) or label, label=labels()),
    "double": Call(lambda x: arguments.double(x), x=points(), own_dtype=True),
    "inner_time": Call(lambda: arguments.inner_time("t_min", 0.5)),
    "one_per_row": Call(lambda x: arguments.one_per_row("log_prob", arguments.sum_over_event(x), x), x=points()),
    "uniform": Call(lambda: arguments.uniform((3, 2), generator=generator())),
    "as_given": Call(lambda x: arguments.as_given(x), x=points()),
    "at_least_single": Call(lambda x: arguments.at_least_single(x), x=points(), own_dtype=True),
    "batch": Call(lambda x: arguments.batch("x", x) or x, x=points()),
    "floating": Call(lambda x: arguments.floating("x", x) or x, x=points()),
    "integers": Call(lambda label: arguments.integers("label", label), label=labels()),
    "one_of": Call(lambda: arguments.one_of("kind", "sphere", ("gaussian", "sphere"))),
    "positive_integer": Call(lambda: arguments.positive_integer("n_steps", 3)),
    "recordable": Call(lambda x: arguments.recordable(x), x=points()),
    "real": Call(lambda x: arguments.real("x", x) or x, x=points()),
    "same_shape": Call(lambda x: arguments.same_shape("score", x, x), x=points()),
    "still_finite": Call(lambda x: arguments.still_finite("states", x, "step", 3), x=points()),
    "standard_normal": Call(lambda: arguments.standard_normal((3, 2), generator=generator())),
}
