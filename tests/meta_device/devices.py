"""Why nothing of ``scorebook.lab.devices`` meets the meta device."""

NOT_DRIVEN = {"device": "takes nothing and names a device"}
