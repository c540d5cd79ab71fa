"""Why nothing of ``scorebook.lab.devices`` takes data, and a call of it."""

from scorebook.lab import devices
from surface import Call

NO_DATA = {"device": "takes nothing", "processor": "takes nothing", "use_one_thread": "takes nothing"}

WITHOUT_DATA = {
    "device": Call(devices.device),
    "processor": Call(devices.processor),
    "use_one_thread": Call(devices.use_one_thread),
}
