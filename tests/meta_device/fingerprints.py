"""Why nothing of ``scorebook.lab.fingerprints`` meets the meta device."""

NOT_DRIVEN = {
    "describe": "returns text",
    "difference": "compares text",
    "fingerprint": "returns text",
}
