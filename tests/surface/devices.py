"""Why nothing of ``scorebook.lab.devices`` takes data."""

NO_DATA = {"device": "takes nothing", "use_one_thread": "takes nothing"}
