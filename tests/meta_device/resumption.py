"""Why nothing of ``scorebook.lab.resumption`` meets the meta device."""

NOT_DRIVEN = {
    "Description": "returns text",
    "of_today": "passes on what was read from a file",
}
