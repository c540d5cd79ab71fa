"""Why nothing of ``scorebook.lab.devices`` takes data, and a call of it."""

from scorebook.lab import devices
from surface import Call

NO_DATA = dict.fromkeys(("device", "is_watched", "processor", "use_one_thread"), "takes nothing")

WITHOUT_DATA = {
    "device": Call(devices.device),
    "is_watched": Call(devices.is_watched),
    "processor": Call(devices.processor),
    "use_one_thread": Call(devices.use_one_thread),
}
