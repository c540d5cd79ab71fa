"""The surface of ``scorebook.lab.estimates``."""

import torch

from scorebook.lab import estimates
from surface import Call, Number, points


def of_mean(values):
    """The tensors of a mean."""
    result = estimates.mean_of(values)
    return result.mean, result.standard_error


CALLS = {
    "Estimate.interval": Call(
        lambda level: estimates.Estimate(torch.ones(2), torch.ones(2), 10).interval(level), level=Number(0.9)
    ),
    "mean_of": Call(of_mean, values=points()),
}

NO_DATA = {
    "Estimate": "holds what has been measured",
    "standard_error": "takes what has been computed from checked numbers",
}

WITHOUT_DATA = {
    "Estimate": Call(lambda x: repr(estimates.Estimate(x, x.abs(), 10)), x=points()),
    "standard_error": Call(lambda x: estimates.standard_error(x.square(), 3), x=points()),
}
