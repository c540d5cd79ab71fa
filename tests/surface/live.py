"""Why nothing of ``scorebook.lab.live`` takes data, and a call of it."""

from scorebook.lab import live
from surface import Call

NO_DATA = {"live": "shows a figure; what state it may have is tried in test_live"}


def told(figure):
    """The state and the law of a figure."""
    return [figure.state["step"], figure.law.means]


WITHOUT_DATA = {"live": Call(lambda: told(live("langevin", step=0.3)))}
