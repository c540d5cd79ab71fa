"""The surface of ``scorebook.lab.metrics``."""

from scorebook.lab import metrics
from surface import Call, Data, Number, generator, points

OTHER = Data(lambda random, n, event: random.standard_normal((4, *event)), rows=False)

CALLS = {
    "energy_distance": Call(lambda x, y: metrics.energy_distance(x, y), x=points(), y=OTHER, dtype_of="widest"),
    "mode_weights": Call(lambda x, means: metrics.mode_weights(x, means), x=points(), means=OTHER, dtype_of="widest"),
    "sliced_wasserstein": Call(
        lambda x, y, p: metrics.sliced_wasserstein(x, y, n_projections=5, p=p, generator=generator()),
        x=points(),
        y=OTHER,
        p=Number(1.5),
        dtype_of="widest",
    ),
}
