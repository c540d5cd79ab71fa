"""Why nothing of ``scorebook.lab.widgets`` meets the meta device."""

NOT_DRIVEN = {"explorer": "shows figures"}
