"""Why nothing of ``scorebook.lab.shipped`` takes data, and a call of it."""

from scorebook import lab
from surface import Call

NO_DATA = {"pretrained": "takes a name"}

WITHOUT_DATA = {"pretrained": Call(lambda: lab.pretrained("digits_classifier"))}
