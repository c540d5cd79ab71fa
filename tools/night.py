"""A Sphinx extension that shows the figures of a notebook on a phone, and in the colours of a dark page too.

Each figure becomes two: as it was drawn, and, for a page in dark colours, with light and dark exchanged. Paper takes
the colour of the page, ink becomes light, and each colour keeps its hue. Photographs stay as they are; the output of
the cell says where they are (``scorebook.lab.plots``). It also holds the figure a second time, with its panels below
each other, for a narrow screen: of that there are two as well, and the page shows the one of four that fits.
"""

import hashlib
from base64 import b64decode
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from docutils import nodes
from PIL import Image, ImageFilter
from run_record import run_of
from sphinx.transforms import SphinxTransform

from scorebook.lab._pages import NARROW, TEXTS
from scorebook.lab.plots import PHOTOGRAPHS

__all__ = ["Drawn", "Nights", "accompany", "contrast", "drawn", "night", "pictures_of", "setup", "turned"]

PAGE, WHITE = (0x12, 0x17, 0x1C), 0.97  # the colour of a dark page, and how light black ink becomes
FULL, BRIGHT = 0.09, 0.87  # the chroma of a full colour, and how light the darkest of them become
ALIKE = 24  # of 255, by which a photograph's last two lines of pixels differ at most
STEPS = 33  # of the table of colours, for each of red, green and blue

# Björn Ottosson's Oklab (2020): lightness first, then two axes of colour.
TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def lab_of(rgb):
    """Oklab of colours with red, green and blue from 0 to 1."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ TO_CONES.T) @ TO_LAB.T


def rgb_of(lab):
    """The inverse of :func:`lab_of`, cut to what a screen shows."""
    linear = (lab @ np.linalg.inv(TO_LAB).T) ** 3 @ np.linalg.inv(TO_CONES).T
    linear = linear.clip(0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def turned(rgb):
    """Colours, red, green and blue from 0 to 1, for a dark page.

    White becomes the page and black nearly white. A full colour, which was chosen to be seen on white, becomes one that
    is seen as well on black, a dark one lighter than a light one; tints lie between.
    """
    page, lab = lab_of(np.array(PAGE) / 255), lab_of(np.asarray(rgb, dtype=float))
    light, colour = lab[..., :1], lab[..., 1:]
    full = (np.linalg.norm(colour, axis=-1, keepdims=True) / FULL).clip(0, 1)
    turned = full * (BRIGHT - light / 4) + (1 - full) * (WHITE + light * (page[0] - WHITE))
    return rgb_of(np.concatenate([turned, colour + (1 - full) * light * page[1:]], axis=-1))


def contrast(a, b):
    """WCAG's ratio of two colours."""

    def luminance(c):
        c = np.asarray(c, dtype=float)
        return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    dark, light = sorted([luminance(a), luminance(b)])
    return (light + 0.05) / (dark + 0.05)


@cache
def table():
    """The same for all colours, as a table between whose entries one may interpolate."""
    side = np.linspace(0, 1, STEPS)
    blue, green, red = np.meshgrid(side, side, side, indexing="ij")
    return ImageFilter.Color3DLUT(STEPS, turned(np.stack([red, green, blue], axis=-1)).reshape(-1, 3).ravel().tolist())


def to_the_pixel(picture, corners):
    """The corners of a photograph where rounding left a line of paper at a side, or one of its own lines outside."""
    pixels, corners = np.asarray(picture, dtype=float), list(corners)
    for k in range(4):
        first, end = corners[1 - k % 2], corners[3 - k % 2]
        lines = pixels[first:end].transpose(1, 0, 2) if k % 2 == 0 else pixels[:, first:end]
        at, outwards = (corners[k], -1) if k < 2 else (corners[k] - 1, 1)
        beside = at + outwards
        if (lines[at] == 255).all():
            corners[k] -= outwards
        elif 0 <= beside < len(lines) and np.abs(lines[beside] - lines[at]).max() < ALIKE:
            corners[k] += outwards
    return corners


def night(picture, photographs=()):
    """A picture for a dark page.

    Args:
        picture: a Pillow image.
        photographs: left, top, right, bottom of what stays as it is, as shares of the picture.
    """
    paper = Image.new("RGB", picture.size, "white")
    paper.paste(picture, mask=picture.getchannel("A") if "A" in picture.getbands() else None)
    dark = paper.filter(table())
    for shares in photographs:
        corners = [round(share * side) for share, side in zip(shares, 2 * picture.size, strict=True)]
        corners = to_the_pixel(paper, corners)
        dark.paste(paper.crop(corners), corners[:2])
    return dark


@dataclass
class Drawn:
    """One picture of a run: bytes, size in CSS pixels, photographs, the same for a phone, and its letters."""

    data: bytes
    size: dict
    photographs: list
    narrow: "Drawn | None" = None
    texts: tuple = ()


def drawn(told, data):
    """A picture from what the metadata of an output tells."""
    narrow = told.get(NARROW)
    size = {side: str(told[side]) for side in ("width", "height") if side in told}
    phone = drawn(narrow, narrow["png"]) if narrow else None
    return Drawn(b64decode(data), size, told.get(PHOTOGRAPHS) or [], phone, tuple(map(tuple, told.get(TEXTS, ()))))


def pictures_of(run):
    """The pictures of an executed notebook, by the names of their files."""
    outputs = [output for cell in run.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [
        drawn(output.metadata.get("image/png", {}), output.data["image/png"])
        for output in outputs
        if "image/png" in output.get("data", {})
    ]
    return {hashlib.sha256(picture.data).hexdigest(): picture for picture in pictures}


def companion(image, path, picture, classes):
    """An image node for another rendering, whose file is beside that of the first; shown where its classes say."""
    copy = image.deepcopy()
    copy["uri"] = str(Path(image["uri"]).with_name(path.name))
    copy.attributes |= picture.size
    copy["classes"] += classes
    copy["loading"] = "lazy"  # it is not fetched where it is not shown
    return copy


def accompany(image, path, picture):
    """Puts the other renderings of a picture beside its image node.

    Args:
        image: a node that has a parent, for the picture as it was drawn.
        path: where the file of that picture is.
        picture: a :class:`Drawn`.
    """
    name = path.stem
    wide = ["on-wide-screens"] if picture.narrow else []
    beside = []
    for of, place in ((picture, wide), (picture.narrow, ["on-narrow-screens"])):
        if of is None:
            continue
        light = path if of is picture else path.with_name(f"{name}-narrow.png")
        dark = light.with_name(f"{light.stem}-dark.png")
        if not light.exists():
            light.write_bytes(of.data)
        if not dark.exists():
            night(Image.open(light), of.photographs).save(dark, optimize=True)
        if of is not picture:
            beside.append(companion(image, light, of, [*place, "only-light"]))
        beside.append(companion(image, dark, of, [*place, "only-dark"]))
    image["classes"] += ["only-light", *wide]
    image.parent.insert(image.parent.index(image) + 1, beside)


class Nights(SphinxTransform):
    """Puts the pictures for the dark and for a phone beside each that a cell has drawn."""

    default_priority = 600

    def apply(self, **kwargs):
        """Walks the page."""
        run = run_of(self.app, self.env.docname)
        if run is None:
            return
        for name, picture in pictures_of(run).items():
            for image in [i for i in self.document.findall(nodes.image) if Path(i["uri"]).stem == name]:
                path = Path(self.app.srcdir) / image["uri"].lstrip("/")
                path = path if path.exists() else Path(image["uri"])
                accompany(image, path, picture)


def setup(app):
    """Registers the extension."""
    app.add_transform(Nights)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
