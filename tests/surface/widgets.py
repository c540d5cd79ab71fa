"""Why nothing of ``scorebook.lab.widgets`` takes data."""

NO_DATA = {"explorer": "hands each value to the reader's own function, and shows what that draws"}
