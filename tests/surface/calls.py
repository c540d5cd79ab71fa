"""The surface of ``scorebook.lab.calls``."""

from scorebook.lab import calls, networks
from surface import Call, field, generator, per_row, points

NO_DATA = {
    "at": "hands on what it is given",
    "layers": "takes a callable",
    "time_per_row": "hands on what it is given; what fits no row is refused in its tests",
    "one_time_for_all": "takes a function",
    "takes_one_time": "takes a callable",
}

WITHOUT_DATA = {
    "at": Call(lambda x, t: calls.at(lambda x, t: t * field(x).flatten(1).sum(1), x, t), x=points(), t=per_row(0, 1)),
    "layers": Call(lambda: len([*calls.layers(networks.MLP(2, width=8, depth=1, generator=generator()).forward)])),
    "time_per_row": Call(lambda x, t: calls.time_per_row(t, x), x=points(), t=per_row(0, 1), own_dtype=True),
    "one_time_for_all": Call(lambda: calls.one_time_for_all(lambda x, t: x).takes_one_time),
    "takes_one_time": Call(lambda: calls.takes_one_time(networks.TimeMLP(2, width=8, depth=1, generator=generator()))),
}
