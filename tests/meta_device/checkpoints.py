"""Why nothing of ``scorebook.lab.checkpoints`` meets the meta device."""

NOT_DRIVEN = {
    "HeldInterrupt": "holds signals",
    "clear_leftovers": "removes files",
    "read": "reads files on the CPU",
    "readable": "writes to memory what has values",
    "usable_path": "looks at paths",
    "write": "writes files, which hold values",
}
