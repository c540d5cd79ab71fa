"""Why nothing of ``scorebook.lab.checkpoints`` takes data."""

CARRIED = "carries tensors to a file and back as they are, whatever they hold"

NO_DATA = {
    "HeldInterrupt": "holds signals",
    "clear_leftovers": "takes a path",
    "read": CARRIED,
    "readable": CARRIED,
    "usable_path": "takes a path",
    "write": CARRIED,
}
