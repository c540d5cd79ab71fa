"""Why nothing of ``scorebook.lab.shipped`` meets the meta device."""

NOT_DRIVEN = {"pretrained": "takes no tensor: reads files, and the reader moves the network"}
