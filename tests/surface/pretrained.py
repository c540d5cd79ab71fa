"""Why nothing of ``scorebook.lab.pretrained`` takes data."""

NO_DATA = {"pretrained": "takes a name"}
