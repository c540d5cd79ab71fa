"""Why nothing of ``scorebook.coursework.reports`` takes data, and calls of it."""

import torch

from scorebook.coursework import reports
from surface import Call, beforehand

ANSWERS = "takes what the checks measured, which may be anything: test_coursework_reports shows that NaN never passes"

NO_DATA = {
    "Answer": ANSWERS,
    "Measurement": "holds numbers",
    "Mistake": "holds words",
    "Report": "holds words and numbers",
    "judge": ANSWERS,
    "slips": "takes a formula",
    "spelt": ANSWERS,
}


@beforehand
def answer():
    """An answer that holds, to a thousandth."""
    truth = torch.tensor([1.0, -2.0], dtype=torch.float64)
    return reports.Answer.exact("mean", truth * 1.0001, truth, 1e-3)


@beforehand
def draws():
    """Draws of an answer."""
    return torch.linspace(-1, 1, 40, dtype=torch.float64).reshape(20, 2)


def row():
    """A row of a report that holds."""
    return reports.Measurement("mean", 1.0, 1.0, 0.0, 0.1)


WITHOUT_DATA = {
    "Answer": Call(lambda: reports.Answer("mean", draws(), draws(), tolerance=0.1).holds),
    "Answer.departure": Call(lambda: answer().departure),
    "Answer.exact": Call(lambda: reports.Answer.exact("mean", draws(), draws(), 1e-3)),
    "Answer.finding": Call(lambda: answer().finding()),
    "Answer.holds": Call(lambda: answer().holds),
    "Answer.is_loud": Call(lambda: answer().is_loud),
    "Answer.limit": Call(lambda: answer().limit),
    "Answer.mean_of": Call(lambda: reports.Answer.mean_of("mean", draws(), draws().mean(0), 1e-3)),
    "Answer.misfit": Call(lambda: answer().misfit(0.5)),
    "Answer.row": Call(lambda: answer().row()),
    "Answer.seen": Call(lambda: answer().seen()),
    "Measurement": Call(row),
    "Measurement.holds": Call(lambda: row().holds),
    "Mistake": Call(lambda: reports.Mistake("sign", "the sign is wrong", lambda: {"mean": 0.0}).predict()),
    "Mistake.keys": Call(lambda: sorted(reports.Mistake("sign", "the sign is wrong", dict).keys)),
    "Report": Call(lambda: repr(reports.Report("check", True, "right", measurements=(row(),)))),
    "Report.require": Call(lambda: reports.Report("check", True, "right").require()),
    "slips": Call(lambda: len(reports.slips(dict, [("sign", "the sign is wrong", {"mean": 0.0})]))),
    "spelt": Call(lambda: reports.spelt(draws()[0])),
    "judge": Call(lambda: reports.judge("check", [answer()], [], verified="right")),
}
