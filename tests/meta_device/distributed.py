"""Calls of ``scorebook.lab.distributed`` on the meta device."""

from meta_device import labels, points
from scorebook.lab import distributed

DRIVEN = {
    "in_chunks": lambda: distributed.in_chunks(lambda x, label: x + label[:, None], points(), labels(), chunk_size=2),
    "over_ranks": lambda: distributed.over_ranks(lambda x, label: x + label[:, None], points(), labels()),
    "share": lambda: distributed.share(points()),
    "summed": lambda: distributed.summed(points()),
}
NOT_DRIVEN = {
    "alike": "compares what is no tensor",
    "any_rank": "takes a truth value and returns one",
    "common_state": "takes a generator",
    "copy_from_first": "returns nothing, and does nothing in one process",
    "from_first": "passes on whatever a function returns",
    "join": "takes no tensor",
    "n_ranks": "counts processes",
    "own_generator": "takes a generator and returns one",
    "rank": "counts processes",
}
