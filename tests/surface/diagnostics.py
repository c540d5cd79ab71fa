"""The surface of ``scorebook.lab.diagnostics``."""

from scorebook.lab import diagnostics
from surface import Call, Data, Number, generator, points

OTHER = Data(lambda random, n, event: random.standard_normal((6, *event)), rows=False)
DRAWS = Data(lambda random, n, event: random.standard_normal((7, n, *event)), rows=False)


def estimate(result):
    """The tensors of an estimate."""
    return result.mean, result.standard_error


def calibrated(draws, truth):
    """All tensors of a calibration."""
    result = diagnostics.calibration(draws, truth, n_bins=3)
    return [part for found in (result.histogram, result.shift, result.spread) for part in estimate(found)]


def copied(x, training, held_out, usual):
    """All tensors of a search for copies."""
    result = diagnostics.copying(x, training, held_out, usual=usual)
    return [part for name in ("nearer", "stranger", "close", "distance") for part in estimate(getattr(result, name))]


def told(x, y):
    """The accuracy of a classifier on six points."""
    return estimate(diagnostics.told_apart(x, y, generator=generator()))


CALLS = {
    "calibration": Call(calibrated, draws=DRAWS, truth=points(), own_dtype=True),
    "copying": Call(copied, x=points(), training=OTHER, held_out=OTHER, usual=Number(0.3), own_dtype=True),
    "coverage": Call(
        lambda draws, truth, level: estimate(diagnostics.coverage(draws, truth, level=level)),
        draws=DRAWS,
        truth=points(),
        level=Number(0.7),
        own_dtype=True,
    ),
    "covered": Call(
        lambda draws, truth, level: diagnostics.covered(draws, truth, level=level),
        draws=DRAWS,
        truth=points(),
        level=Number(0.7),
        own_dtype=True,
    ),
    "nearest": Call(lambda x, points: diagnostics.nearest(x, points)[0], x=points(), points=OTHER, dtype_of="widest"),
    "same_kind": Call(lambda x, y: estimate(diagnostics.same_kind(x, y)), x=points(), y=OTHER, own_dtype=True),
    "told_apart": Call(told, x=OTHER, y=OTHER, own_dtype=True),
}

NO_DATA = {"Calibration": "holds what calibration measures", "Copying": "holds what copying measures"}

WITHOUT_DATA = {
    "Calibration": Call(lambda x: diagnostics.calibration(x[None], x).shift.mean, x=points(), own_dtype=True),
    "Copying": Call(lambda x: diagnostics.copying(x, x + 1, x - 1).nearer.mean, x=points(), own_dtype=True),
}
