"""The faults that ``make mutants`` puts into a module: which they are, what becomes of them, and what the pages say."""

import json
import math
import subprocess
import sys
import tomllib

import mutants
import pytest
import run_record

pytestmark = pytest.mark.xdist_group("mutants")  # one worker tries the faults, once

MODULE = '''
"""Sums."""
LIMIT = 3


def total(values):
    """A sum of 1 and -1 is 0."""
    found = 0
    for value in values:
        found += value
    if found > 10**6:
        found = -1
    return found


def halvings(n):
    steps = 0
    while n > 1:
        n //= 2
        steps += 1
    return steps
'''

LAWS = """
import sums


def test_a_sum_is_that_of_its_parts():
    assert sums.total([1, 2, 3]) == 6


def test_a_power_of_two_is_halved_as_often():
    assert sums.halvings(8) == 3


def test_that_fails_without_a_fault():
    assert False
"""

# How the version ends, and what is changed in it.
VERSIONS = {
    "as it was": ("survived", "", ""),
    "sign": ("caught", "found += value", "found -= value"),
    "no law": ("survived", "found = -1", "found = -2"),
    "endless": ("hung", "n //= 2", "n //= 1"),
    "no Python": ("caught", "return found", "return ]"),
    "the sign again": ("caught", "found += value", "found -= value"),
    "out of the way": ("caught", "return found", "__import__('os')._exit(3)"),
}

DRIVER = """
import json, sys
sys.path.insert(0, {tools!r})
from pathlib import Path
import mutants

runner = mutants.Runner("sums.py", ["tests/test_sums.py"], Path({root!r}), more_s=3, still_s=600)
runner.prepare()
ended = {{name: runner.run(code)[0] for name, code in json.loads(sys.stdin.read()).items()}}
waiting = mutants.Runner("sums.py", ["tests/test_sums.py"], Path({root!r}), still_s=5)
ended["asleep"] = waiting.run("import time; time.sleep(10**6)")[0]
copies = [str(each.copy) for each in (runner, waiting)]
for each in (runner, waiting):
    each.close()
print(json.dumps([ended, sorted(runner.broken), copies]))
"""


@pytest.fixture(scope="module")
def tried(root, tmp_path_factory):
    """What became of each version of a module of one's own, what was left out, and where the copies were."""
    home = tmp_path_factory.mktemp("sums")
    (home / "tests").mkdir()
    (home / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\nmarkers = ['site']\npythonpath = ['.']\n", encoding="utf-8"
    )
    (home / "sums.py").write_text(MODULE, encoding="utf-8")
    (home / "tests" / "test_sums.py").write_text(LAWS, encoding="utf-8")
    versions = {name: MODULE.replace(was, became) for name, (_, was, became) in VERSIONS.items()}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER.format(tools=str(root / "tools"), root=str(home))],
        input=json.dumps(versions), capture_output=True, encoding="utf-8", cwd=home, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return home, *json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", VERSIONS)
def test_a_fault_is_caught_survives_or_hangs(tried, name):
    assert tried[1][name] == VERSIONS[name][0]


def test_what_only_waits_is_ended(tried):
    assert tried[1]["asleep"] == "hung"


def test_a_test_that_fails_without_a_fault_catches_none(tried):
    assert tried[2] == ["tests/test_sums.py::test_that_fails_without_a_fault"]


def test_the_repository_stays_as_it_was_and_no_copy_is_left(tried):
    home, _, _, copies = tried
    assert (home / "sums.py").read_text(encoding="utf-8") == MODULE
    assert sorted(path.name for path in home.iterdir()) == ["pyproject.toml", "sums.py", "tests"]
    assert not any(mutants.Path(copy).exists() for copy in copies)


# Which faults there are, where the tool is installed (make mutants runs this file there)


@pytest.fixture
def mutations():
    pytest.importorskip("cosmic_ray", reason="only make mutants has the tool")
    import mutations

    return mutations


HINTS = '''
"""1 - 2"""
def drawn(x: int | None = 1, *, y: "a | b" = None, **z) -> int | str:
    """If 1 > 2."""
    n: int | None = None
    @property
    def inner():
        check(x, limit=0.002)
        return x - 1
    return inner

@overload
def drawn(x: int, y: bool = True) -> int: ...

if __name__ == "__main__":
    drawn(1 + 2)
'''


def test_hints_docstrings_and_scripts_are_left_alone(mutations):
    found = {mutants.changed_lines(HINTS, mutant.code)[1:] for mutant in mutations.drawn(HINTS, 0)}
    changed = {tuple(side.strip() for side in pair) for pair in found}
    head = 'def drawn(x: int | None = 1, *, y: "a | b" = None, **z) -> int | str:'
    assert changed == {
        (head, head.replace("= 1", "= 2")),
        (head, head.replace("= 1", "= 0")),
        ("@property", ""),
        ("check(x, limit=0.002)", "check(x)"),
        ("check(x, limit=0.002)", "check(x, limit=2.0)"),
        ("check(x, limit=0.002)", "check(x, limit= 1.002)"),
        ("check(x, limit=0.002)", "check(x, limit= -0.998)"),
        ("check(x, limit=0.002)", "pass"),
        ("return x - 1", "return x + 1"),
        ("return x - 1", "return x - 2"),
        ("return x - 1", "return x - 0"),
    }


def test_each_operator_does_as_its_examples_say(mutations):
    for operator in (mutations.DropArgument, mutations.DropCall, mutations.LoosenTolerance):
        for each in operator.examples():
            assert mutations.mutate_code(each.pre_mutation_code, operator(), 0) == each.post_mutation_code


@pytest.mark.parametrize(
    ("handler", "n"),
    [("OSError", 1), ("os.error", 1), ("(OSError, os.error)", 2), ("os.error as e", 1), ("(KeyError)", 1)],
)
def test_a_handler_forgets_each_of_its_exceptions(mutations, handler, n):
    code = f"try: f()\nexcept {handler}: g()\n"
    changed = {mutate.code for mutate in mutations.drawn(code, 0) if mutate.key.startswith("ForgetException")}
    assert len(changed) == n
    assert all(word.count("CosmicRayTestingException") == 1 for word in changed)


def test_a_seed_draws_the_order(mutations):
    first, again, other = ([m.key for m in mutations.drawn(MODULE, seed)] for seed in ("a", "a", "b"))
    assert first == again != other
    assert sorted(first) == sorted(other)


# What is kept, and what the pages say


def record(**changes):
    survivors = [{"line": 7, "was": "a + b", "became": "a - b", "reason": None}] * 3
    survivors += [{"line": 9, "was": "c", "became": "d", "reason": "c is d"}]
    whole = {"commit": "0123456789", "date": "2026-01-02", "seed": 0, "mutants": 84, "tried": 21, "hung": 2}
    return whole | {"survivors": survivors} | changes


def test_the_figure_is_the_share_of_those_that_are_not_equivalent():
    share, error = mutants.figure(record())
    p = 18 / 22  # 17 of 20, and one more of each kind
    assert share == pytest.approx(17 / 20)
    assert error == pytest.approx(math.sqrt(p * (1 - p) / 20 * (80 - 20) / (80 - 1)))
    assert mutants.percent(record()) == "85 % ± 8 %"


@pytest.mark.parametrize(("total", "caught", "n"), [(40, 30, 12), (180, 160, 40), (100, 60, 90)])
def test_the_error_is_that_of_drawing(total, caught, n):
    """Over all samples that a module can give, its square is on average that of the miss, or up to a sixth more."""
    ways = {k: math.comb(caught, k) * math.comb(total - caught, n - k) / math.comb(total, n) for k in range(n + 1)}
    ways = {k: weight for k, weight in ways.items() if weight}
    miss = sum(weight * (k / n - caught / total) ** 2 for k, weight in ways.items())
    each = {"line": 1, "was": "", "became": "", "reason": None}
    told = {k: mutants.figure(record(mutants=total, tried=n, survivors=[each] * (n - k)))[1] ** 2 for k in ways}
    assert miss <= sum(ways[k] * told[k] for k in ways) <= 7 / 6 * miss


def test_where_all_were_tried_there_is_no_error():
    assert mutants.figure(record(mutants=21))[1] == 0
    assert mutants.percent(record(mutants=21)) == "85 %"
    assert mutants.told(record(mutants=21)) == "all 21"


def test_none_missed_in_a_few_is_not_none_missed():
    assert mutants.percent(record(tried=4, survivors=[])) == "100 % ± 18 %"


def test_the_status_page_says_how_many_of_which():
    table = run_record.faults_table({"scorebook/langevin.py": record(), "scorebook/sde.py": None})
    header, *rows = [
        [entry.astext() for entry in row.findall(run_record.nodes.entry)] for row in table.findall(run_record.nodes.row)
    ]
    assert header == ["Module", "Caught ± standard error", "Faults tried", "Survived", "Equivalent", "Commit, date"]
    assert rows == [
        ["langevin", "85 % ± 8 %", "21 drawn of 84", "3", "1", "0123456789, 2026-01-02"],
        ["sde", "not run", "", "", "", ""],
    ]
    numbers = [entry["classes"] == ["num"] for entry in table.findall(run_record.nodes.entry)]
    assert numbers == [False, True, True, True, True, False] * 3


def test_the_report_shows_each_survivor_and_why_the_others_are_none():
    text = mutants.report({"scorebook/langevin.py": record(), "scorebook/sde.py": None})
    assert "| scorebook/langevin.py | 85 % ± 8 % | 21 drawn of 84 | 3 | 1 | 2 | 0123456789 | 2026-01-02 |" in text
    assert "| scorebook/sde.py | not run |" in text
    assert text.count("scorebook/langevin.py:7, survived\n\n```diff\n- a + b\n+ a - b\n```") == 3
    assert "scorebook/langevin.py:9, equivalent: c is d\n\n```diff\n- c\n+ d\n```" in text


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("a\nb\nc\n", "a\nx\nc\n", (2, "b", "x")),
        ("a\nb\nc\n", "a\nc\n", (2, "b", "")),
        ("a\n    b(\n  1)\n", "a\n    pass\n", (2, "    b(\n  1)", "    pass")),
    ],
)
def test_a_change_is_told_by_its_lines(before, after, found):
    assert mutants.changed_lines(before, after) == found


def test_a_module_is_called_by_the_end_of_its_path():
    known = ["scorebook/score_matching.py", "scorebook/sliced_score_matching.py", "scorebook/lab/metrics.py"]
    assert mutants.resolve(["score_matching", "lab/metrics.py"], known) == [known[0], known[2]]
    with pytest.raises(SystemExit, match="'matching'"):
        mutants.resolve(["matching"], known)


def test_what_was_caught_stays_caught_until_the_module_changes(tmp_path):
    for name, text in {"sums.py": "1", "tools/mutations.py": "", "tests/test_sums.py": "2"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")

    def ended():
        return mutants.session("sums.py", ["tests/test_sums.py"], tmp_path)[1]["ended"]

    path, notes = mutants.session("sums.py", ["tests/test_sums.py"], tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(notes | {"ended": {"a": "caught", "b": "survived", "c": "hung"}}), encoding="utf-8")
    assert ended() == {"a": "caught", "b": "survived", "c": "hung"}
    (tmp_path / "tests/test_sums.py").write_text("3", encoding="utf-8")
    assert ended() == {"a": "caught", "c": "hung"}
    (tmp_path / "sums.py").write_text("4", encoding="utf-8")
    assert ended() == {}


def test_the_page_is_that_of_the_results(root):
    assert (root / mutants.PAGE).read_text(encoding="utf-8") == mutants.report(mutants.kept(root))


def test_what_is_listed_as_equivalent_stands_in_a_module_and_has_a_reason(root):
    for each in tomllib.loads((root / mutants.EQUIVALENT).read_text(encoding="utf-8")).get("mutant", []):
        assert each["was"].strip() in (root / each["module"]).read_text(encoding="utf-8"), each
        assert len(each["reason"]) > 10


def test_every_module_has_tests(root):
    assert [name for name in mutants.modules(root) if not mutants.concerned(name, root)] == []
