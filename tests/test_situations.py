"""What the reference says of other people's programs is what the tests have recorded."""

import json

import pytest
import situations
from docutils import nodes

RECORD = {
    "situations": ["inference", "autocast", "spawn", "gradient"],
    "langevin.langevin": {"refused": ["autocast"]},
    "sde.VPSDE.alpha (a row)": {"refused/gradient": ["spawn"]},
    "sde.VPSDE.alpha (a scalar)": {"refused": ["inference"], "gradient": ["gradient"]},
    "lab.MLP": {"gradient": ["gradient"]},
    "lab.UNet": {"gradient": ["gradient"]},
    "coursework_sde.check_sde": {},
}
SAID = {
    "langevin.langevin": "refuses autocast",
    "sde.VPSDE.alpha": "refuses inference, spawn; gradients flow through it",
    "lab.MLP": "right in all; gradients flow through it",
    "lab.UNet": "right in all; gradients flow through it",
    "coursework_sde.check_sde": "right in all",
}


@pytest.fixture(autouse=True)
def _recorded(tmp_path, monkeypatch):
    path = tmp_path / "programs.json"
    path.write_text(json.dumps(RECORD), encoding="utf-8")
    monkeypatch.setattr(situations, "RECORD", path)
    monkeypatch.setattr(situations, "FOUND", situations.answers())


def test_all_rows_of_a_function_are_told_together_in_the_order_of_the_situations():
    assert {name: situations.line_of(words) for name, words in situations.FOUND.items()} == SAID


def test_functions_that_answer_alike_share_a_row_and_most_come_first():
    found = situations.groups(situations.FOUND)
    assert found[0] == ("right in all; gradients flow through it", ["lab.MLP", "lab.UNet"])
    assert {name: line for line, names in found for name in names} == SAID
    assert len(found) == 4


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("scorebook.langevin.langevin", "langevin.langevin"),
        ("scorebook.sde.VPSDE.alpha", "sde.VPSDE.alpha"),
        ("scorebook.coursework.sde.check_sde", "coursework_sde.check_sde"),
        ("scorebook.lab.networks.Other", None),
    ],
)
def test_an_entry_of_the_reference_gets_its_line(name, key):
    lines = ["What it does."]
    situations.tell(None, "function", name, None, None, lines)
    added = [] if key is None else ["", f":ref:`Situations <in-other-peoples-programs>`: {SAID[key]}.", ""]
    assert lines == ["What it does.", *added]


def test_the_table_ends_with_all_that_need_no_word(monkeypatch):
    noted = []
    directive = object.__new__(situations.Situations)
    environment = type("Environment", (), {"note_dependency": staticmethod(noted.append)})
    monkeypatch.setattr(situations.Situations, "env", environment, raising=False)
    (table,) = directive.run()
    rows = [[cell.astext() for cell in row.findall(nodes.entry)] for row in table.findall(nodes.row)]
    assert rows[0] == ["Answer", "Functions"]
    assert rows[-1] == ["right in all", "every other function"]
    assert rows[1] == ["right in all; gradients flow through it", "lab.MLP, lab.UNet"]
    assert len(rows) == 5
    assert noted == [str(situations.RECORD)]
