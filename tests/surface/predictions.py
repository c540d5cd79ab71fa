"""The surface of ``scorebook.lab.predictions``."""

from scorebook.lab import predictions
from surface import Call, per_row, points

KINDS = ("score", "noise", "clean", "velocity", "flow")

CALLS = {
    "convert_prediction": Call(
        lambda prediction, x, alpha, sigma: [
            predictions.convert_prediction(prediction, x, alpha, sigma, source=source, target=target)
            for source in KINDS
            for target in KINDS
        ],
        prediction=points(),
        x=points(),
        alpha=per_row(0.3, 1.0),
        sigma=per_row(0.3, 1.0),
        by_row=True,
    ),
}
