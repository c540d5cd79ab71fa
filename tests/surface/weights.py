"""Why nothing of ``scorebook.lab.weights`` takes data, and calls of it; its classes are called by ``fit``."""

from pathlib import Path

from scorebook.lab import networks, weights
from surface import Call, beforehand, generator

CARRIED = "carries weights as they are, whatever they hold; fit stops where a loss is not finite"

NO_DATA = {
    "Average": CARRIED,
    "Keepsakes": CARRIED,
    "Precise": CARRIED,
    "check_extra_states": "compares states of any kind",
    "check_weights": "compares names, shapes and types",
    "load_weights": CARRIED,
}


@beforehand
def network():
    """A small one."""
    return networks.MLP(2, width=4, depth=1, generator=generator())


def loaded():
    """Weights of another network."""
    model, other = network(), network()
    state = {name: value + 1 for name, value in other.state_dict().items()}
    weights.check_weights({"model": state, "description": {}}, model, Path("run.pt"))
    weights.check_extra_states(state, model, Path("run.pt"))
    weights.load_weights(state, model)
    return [*model.state_dict().values()]


WITHOUT_DATA = {name: Call(loaded) for name in ("check_extra_states", "check_weights", "load_weights")}
