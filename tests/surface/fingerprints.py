"""Why nothing of ``scorebook.lab.fingerprints`` takes data."""

NO_DATA = {
    "describe": "tells values of any kind apart, NaN and infinity included",
    "difference": "compares text",
    "fingerprint": "tells tensors of any kind apart, NaN and infinity included",
}
