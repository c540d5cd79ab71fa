"""Why nothing of ``scorebook.lab.devices`` meets the meta device."""

NOT_DRIVEN = {
    "device": "takes nothing and names a device",
    "is_watched": "takes nothing and looks at the terminal",
    "processor": "takes nothing and names a processor",
    "use_one_thread": "takes no tensor",
}
