"""The open project's leaderboard: what counts is counted out of reach, and cheats have no place."""

import json
import math
import sys

import contest
import leaderboard
import pytest
import torch
from examination import examination
from test_assignments import ROOT

sys.path.insert(0, str(ROOT / "coursework" / "project"))
import master
import naive

DIGITS = leaderboard.DIGITS


@pytest.fixture(scope="module")
def rooms():
    """Two kernels, in which one entry is run after the other."""
    with examination() as rooms:
        yield rooms


def entry(name):
    return (ROOT / "coursework" / "project" / f"{name}.py").read_text(encoding="utf-8")


# What the judge measures


def test_the_laws_are_new_with_each_seed_and_the_same_with_one():
    first, again, other = contest.laws(1), contest.laws(1), contest.laws(2)
    assert DIGITS in first
    assert len(first) == 3
    for name, law in first.items():
        assert torch.equal(law.means, again[name].means)
        assert not torch.equal(law.means, other[name].means)


def exact(law):
    """An entry that is told the law, and draws from it."""
    return lambda score, sde, x, n, *, data_std: law.sample(len(x), generator=torch.Generator().manual_seed(3))


def test_exact_draws_have_a_ratio_of_one_and_no_copies():
    ratios = []
    for seed in range(3):
        for law in contest.laws(seed).values():
            ratios.append(contest.measured(exact(law), law, 4, seed)["ratio"])
    error = torch.tensor(ratios).std().item() / math.sqrt(len(ratios))
    assert abs(sum(ratios) / len(ratios) - 1) < 4 * error
    law = contest.laws(0)[DIGITS]
    assert contest.measured(exact(law), law, 4, 0)["copied"] == 0


def test_who_returns_the_points_of_the_law_has_no_place_and_a_quarter_of_them_is_enough():
    law = contest.laws(0)[DIGITS]

    def copies(score, sde, x, n, *, data_std):
        return law.means[torch.randint(len(law.means), (len(x),), generator=torch.Generator().manual_seed(4))]

    def quarter(score, sde, x, n, *, data_std):
        some = torch.arange(len(x))[:, None] % 4 == 0
        honest = exact(law)(score, sde, x, n, data_std=data_std)
        return torch.where(some, copies(score, sde, x, n, data_std=data_std), honest)

    for cheat, share in ((copies, 1.0), (quarter, 0.25)):
        found = contest.measured(cheat, law, 4, 0)
        assert found["copied"] == pytest.approx(share, abs=0.01)
        rounds = [found | {"law": DIGITS, "n": n} for n in leaderboard.EVALUATIONS]
        assert "of which the law is made" in leaderboard.result("copies", rounds).remark


def test_a_budget_is_counted_in_rows_and_a_caught_refusal_helps_nobody():
    law = contest.laws(0)["a spiral"]

    def doubled(score, sde, x, n, *, data_std):
        return score(torch.cat([x, x]), torch.tensor(1.0))[: len(x)] if n == 4 else x

    def patient(score, sde, x, n, *, data_std):
        for _ in range(9):
            try:
                score(x, torch.tensor(0.5))
            except Exception:
                break
        return x

    assert contest.measured(doubled, law, 4, 0)["evaluations"] == 2
    found = contest.measured(patient, law, 8, 0)
    assert found["remark"] == "the score was asked for more than 8 evaluations"
    assert "ratio" not in found


@pytest.mark.parametrize("n", leaderboard.EVALUATIONS)
def test_the_entries_of_the_book_keep_to_their_budget(n):
    law = contest.laws(0)["a spiral"]
    assert contest.measured(naive.sample, law, n, 0)["evaluations"] == n
    assert contest.measured(master.sample, law, n, 0)["evaluations"] == n


# Entries in a process of their own

TOO_MANY = """
def sample(score, sde, x, n_evaluations, *, data_std):
    try:
        for _ in range(n_evaluations + 1):
            score(x, sde.time_grid(2)[0].to(x))
    except Exception:
        pass
    return x
"""

RESET = """
import gc

def sample(score, sde, x, n_evaluations, *, data_std):
    for name in ("rows", "left"):
        try:
            setattr(score, name, -10**9 if name == "rows" else 10**9)
        except Exception:
            pass
    for thing in gc.get_objects():
        if type(thing).__name__ == "Budget":
            thing.rows = -10**9
    for _ in range(n_evaluations + 1):
        score(x, sde.time_grid(2)[0].to(x))
    return x
"""

HELD_BACK = """
import gc, sys

def sample(score, sde, x, n_evaluations, *, data_std):
    frame = sys._getframe()
    while frame:
        for space in (frame.f_globals, frame.f_locals):
            if "reference" in space or "law" in space:
                return space["reference"][: len(x)]
        frame = frame.f_back
    found = [o for o in gc.get_objects() if type(o).__name__ == "GaussianMixture"]
    law = found[0] if found else score.score.__self__
    return law.sample(len(x))
"""

TRAINING = """
import torch
from scorebook import lab

def sample(score, sde, x, n_evaluations, *, data_std):
    digits = lab.digits("train")[0].flatten(1).double()
    return digits[: len(x)] if x.shape[1] == 64 else data_std * x
"""

CHEATS = {
    "the score too often": (TOO_MANY, "more than 4 evaluations"),
    "the count set back": (RESET, "more than 4 evaluations"),
    "the held-back draws": (HELD_BACK, "clusters in 8 dimensions, n = 4: "),
    "no answer": ("answer = 42", "sample"),
    "a wrong shape": ("def sample(score, sde, x, n, *, data_std):\n    return x[:2]", "expected a tensor of shape"),
    "an error": ("def sample(score, sde, x, n, *, data_std):\n    return 1 / 0", "ZeroDivisionError"),
}


@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_has_no_place(name, rooms):
    source, words = CHEATS[name]
    assert rooms.run("%reset -f", 60).passed
    rounds, remark = leaderboard.judge(rooms, [source], 5)
    found = leaderboard.result(name, rounds, remark)
    assert words in found.remark
    other = leaderboard.Result("other", {4: 9.0, 8: 9.0, 16: 9.0}, 0.0, "")
    assert leaderboard.ranked([found, other])[0] is other


def test_training_data_are_of_no_use_and_the_master_beats_the_naive_entry(rooms):
    found = {}
    for name, source in (("naive", entry("naive")), ("master", entry("master")), ("training", TRAINING)):
        assert rooms.run("%reset -f", 60).passed
        rounds, remark = leaderboard.judge(rooms, [source], 6)
        found[name] = leaderboard.result(name, rounds, remark)
    assert not found["naive"].remark
    assert not found["master"].remark
    assert found["master"].score < found["naive"].score < found["training"].score
    assert found["training"].score > 3


# The table


def test_the_table_has_its_order_and_says_who_has_no_place():
    results = [
        leaderboard.Result("slow.py", {4: 3.0, 8: 2.0, 16: 1.5}, 0.0, ""),
        leaderboard.Result("cheat.py", {4: 0.5, 8: 0.5, 16: 0.5}, 0.4, "40 % of its digits"),
        leaderboard.Result("fast.py", {4: 1.5, 8: 1.2, 16: 1.0}, 0.0, ""),
    ]
    table = leaderboard.board(results, 7)
    rows = [line.split(" | ") for line in table.splitlines() if "`" in line]
    assert [(row[0], row[1]) for row in rows] == [("| 1", "`fast.py`"), ("| 2", "`slow.py`"), ("| –", "`cheat.py`")]
    assert "seed 7" in table
    assert "1.22" in rows[0]


def test_the_command_reads_a_folder_and_writes_a_table(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "entries"
    folder.mkdir()
    (folder / "one.py").write_text(entry("naive"), encoding="utf-8")
    (folder / "two.ipynb").write_text("no notebook", encoding="utf-8")
    rounds = [{"law": "a", "n": n, "ratio": 2.0, "copied": 0.0, "remark": ""} for n in leaderboard.EVALUATIONS]
    seeds = []
    monkeypatch.setattr(leaderboard, "examination", lambda: __import__("contextlib").nullcontext())
    monkeypatch.setattr(leaderboard, "judge", lambda rooms, sources, seed: (seeds.append(seed), (rounds, ""))[1])
    leaderboard.main([str(folder)])
    table = (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    assert "| 1 | `one.py` | 2.00 | 2.00 | 2.00 | 2.00 | 0 % |  |" in table
    assert "| – | `two.ipynb` |" in table
    assert "cannot be read: not a notebook" in table
    leaderboard.main([str(folder), "--again", str(tmp_path / "leaderboard.json")])
    assert seeds[0] == seeds[1] == json.loads((tmp_path / "leaderboard.json").read_text(encoding="utf-8"))["seed"]
    with pytest.raises(SystemExit, match="holds no entry"):
        leaderboard.main([str(tmp_path / "none")])
