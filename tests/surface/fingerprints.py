"""Why nothing of ``scorebook.lab.fingerprints`` takes data, and calls of it."""

from scorebook.lab import fingerprints
from surface import Call, points

NO_DATA = {
    "describe": "tells values of any kind apart, NaN and infinity included",
    "difference": "compares text",
    "fingerprint": "tells tensors of any kind apart, NaN and infinity included",
}

WITHOUT_DATA = {
    "describe": Call(lambda: fingerprints.describe("settings", {"lr": 0.1, "n_steps": 3})),
    "difference": Call(lambda: fingerprints.difference({"lr": "0.1"}, {"lr": "0.2"})),
    "fingerprint": Call(lambda x: fingerprints.fingerprint(x.detach().float()), x=points()),
}
