"""Why nothing of ``scorebook.lab.distributed`` takes data, and calls of it in one process."""

from scorebook.lab import distributed
from surface import Call, generator, points

CARRIED = "carries rows between processes as they are, whatever they hold"
STATE = "takes what processes must agree on"

NO_DATA = {
    "alike": STATE,
    "any_rank": "takes a truth value",
    "common_state": STATE,
    "copy_from_first": CARRIED,
    "from_first": "takes a function",
    "in_chunks": CARRIED,
    "join": "takes a device",
    "n_ranks": "takes none",
    "over_ranks": CARRIED,
    "own_generator": STATE,
    "rank": "takes none",
    "share": CARRIED,
    "summed": CARRIED,
}

WITHOUT_DATA = {
    "alike": Call(lambda: distributed.alike(n_steps=3, lr=0.1)),
    "any_rank": Call(lambda: distributed.any_rank(True)),
    "common_state": Call(lambda: distributed.common_state(generator())),
    "copy_from_first": Call(lambda x: distributed.copy_from_first(x) or x, x=points()),
    "from_first": Call(lambda: distributed.from_first(lambda n: n, 3)),
    "in_chunks": Call(lambda x: distributed.in_chunks(lambda x: 2 * x, x, chunk_size=2), x=points(), sampler=True),
    "join": Call(lambda: distributed.join("cpu")),
    "n_ranks": Call(distributed.n_ranks),
    "over_ranks": Call(lambda x: distributed.over_ranks(lambda x: 2 * x, x), x=points(), sampler=True),
    "own_generator": Call(lambda: distributed.own_generator(generator()).initial_seed()),
    "rank": Call(distributed.rank),
    "share": Call(lambda x: distributed.share(x), x=points()),
    "summed": Call(lambda x: distributed.summed(x), x=points()),
}
