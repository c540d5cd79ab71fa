"""The surface of ``scorebook.lab.datasets``."""

from scorebook.lab import datasets
from surface import Call, Number, generator, points

READ = "takes a name"

CALLS = {
    "hue": Call(lambda images: datasets.hue(images), images=points(), events=((3, 4, 5), (3, 2, 2)), by_row=True),
    "moons": Call(lambda noise: datasets.moons(4, noise=noise, generator=generator()), noise=Number(0.1)),
    "swiss_roll": Call(lambda noise: datasets.swiss_roll(4, noise=noise, generator=generator()), noise=Number(0.1)),
}

NO_DATA = {
    "checkerboard": "takes a whole number",
    "coloured_digits": READ,
    "digits": READ,
    "mnist": READ,
}
