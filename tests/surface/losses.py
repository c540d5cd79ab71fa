"""Why nothing of ``scorebook.lab.losses`` takes data, and calls of it."""

import functools

import torch

from scorebook.lab import losses, networks
from surface import Call, beforehand, generator, like, points

HANDED_ON = "hands data to a loss as they are"

NO_DATA = {
    "Objective": HANDED_ON,
    "check_fits": "looks at the parameters of a function",
    "in_place": HANDED_ON,
    "scalar": "passes on what a loss gave; fit stops where that is not finite",
    "takes_generator": "looks at the parameters of a function",
}


@beforehand
def network(x):
    """In the precision of the points."""
    return like(networks.MLP(2, width=8, depth=1, generator=generator()), x)


def power(model, exponent, x):
    """A loss with an argument between the model and the data."""
    return model(x).pow(exponent).mean()


def square(model, x):
    """A loss of model and data."""
    return power(model, 2, x)


@torch.inference_mode(False)
@torch.enable_grad()
def objective(x):
    """The loss of a batch by a module, as fit asks for it, detached."""
    return losses.Objective(network(x), square)(x.clone()).detach()


def bound(x):
    """The loss of a batch of which the exponent is bound, detached."""
    return losses.in_place(functools.partial(power, exponent=2))(network(x), x).detach()


WITHOUT_DATA = {
    "Objective": Call(objective, x=points(), events=((2,),)),
    "Objective.forward": Call(objective, x=points(), events=((2,),)),
    "check_fits": Call(lambda: losses.check_fits(power, None, (2, None), {}, TypeError("of its own"))),
    "in_place": Call(bound, x=points(), events=((2,),)),
    "scalar": Call(lambda x: losses.scalar(x.sum()), x=points()),
    "takes_generator": Call(lambda: losses.takes_generator(power)),
}
