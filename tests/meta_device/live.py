"""Why nothing of ``scorebook.lab.live`` meets the meta device."""

NOT_DRIVEN = {"live": "shows a figure, whose law is on the CPU"}
