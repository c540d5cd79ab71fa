"""Why nothing of ``scorebook.lab.distributed`` takes data."""

CARRIED = "carries rows between processes as they are, whatever they hold"
STATE = "takes what processes must agree on"

NO_DATA = {
    "alike": STATE,
    "any_rank": "takes a truth value",
    "common_state": STATE,
    "copy_from_first": CARRIED,
    "from_first": "takes a function",
    "join": "takes a device",
    "n_ranks": "takes none",
    "over_ranks": CARRIED,
    "own_generator": STATE,
    "rank": "takes none",
    "share": CARRIED,
    "summed": CARRIED,
}
