"""Why nothing of ``scorebook.lab.fingerprints`` takes data, and calls of it."""

from scorebook.lab import fingerprints
from surface import Call, points

NO_DATA = {
    "describe": "tells values of any kind apart, NaN and infinity included",
    "difference": "compares text",
    "fingerprint": "tells tensors of any kind apart, NaN and infinity included",
}


def described():
    """Lines that say what a value is, but for the one on the interpreter."""
    lines = fingerprints.describe("settings", {"lr": 0.1, "n_steps": 3})
    return {path: text for path, text in lines.items() if path != "python"}


WITHOUT_DATA = {
    "describe": Call(described),
    "difference": Call(lambda: fingerprints.difference({"lr": "0.1"}, {"lr": "0.2"})),
    "fingerprint": Call(lambda x: fingerprints.fingerprint(x.detach().float()), x=points()),
}
