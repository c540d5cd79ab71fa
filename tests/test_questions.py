"""The question bank is complete, computed, balanced, and comes back whole from what Moodle reads."""

import html
import re
from fractions import Fraction

import nbformat
import pytest
import questions
from claimed import plain
from question_truths import NAMES

CHAPTERS = [
    "controllable_generation",
    "langevin",
    "monte_carlo",
    "noise_scales",
    "probability_flow",
    "score_matching",
    "sde",
    "sliced_score_matching",
]
BANKS = questions.banks()
QUESTIONS = {f"{chapter}, {question.id}": question for chapter, bank in BANKS.items() for question in bank}


def test_every_chapter_has_its_questions_and_nothing_else_has():
    assert sorted(BANKS) == CHAPTERS


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_has_at_least_ten(chapter):
    assert len(BANKS[chapter]) >= 10


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_question_names_the_section_that_treats_it(chapter, root):
    cells = nbformat.read(root / "book" / f"{chapter}.ipynb", 4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    titles = {plain(title) for title in re.findall(r"^###? (.+)$", text, re.M)}
    assert {plain(question.section) for question in BANKS[chapter]} - titles == set()


def shown(text):
    """A number as it was typed, and half of its last digit."""
    plain = text.replace(",", "").replace("{", "").replace("}", "")
    digits = len(plain.partition(".")[2])
    return float(Fraction(plain)), 0.5 * 10.0**-digits


def disagreement(question, names=NAMES):
    """The numbers of a question that its expressions do not give, and the checks that do not hold."""
    texts = " ".join([*(o.text for o in question.options), *(o.why for o in question.options)])
    wrong = []
    for text, expression in question.numbers.items():
        value, half = shown(text)
        if not re.search(rf"(?<![\d.,]){re.escape(text)}(?![\d]|[.,]\d)", texts):
            wrong.append(f"{text} is not said")
        if not abs(eval(expression, dict(names)) - value) <= half * (1 + 1e-9):
            wrong.append(f"{text} is not {expression}")
    return wrong + [check for check in question.check if not eval(check, dict(names))]


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_numbers_are_computed_and_the_checks_hold(name):
    assert disagreement(QUESTIONS[name]) == []


def numbers_of(text):
    return set(re.findall(r"(?<![\d.,^_{])\d+(?:,\d{3})*\.\d+|(?<![\d.,^_{])\d{1,3}(?:,\d{3})+", text))


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_decimal_among_the_options_is_given_or_computed(name):
    question = QUESTIONS[name]
    given = numbers_of(question.ask) | set(question.numbers)
    assert set().union(*(numbers_of(option.text) for option in question.options)) - given == set()


@pytest.mark.parametrize("name", [name for name, question in QUESTIONS.items() if question.numbers])
def test_a_wrong_number_is_seen(name):
    question = QUESTIONS[name]
    text = next(iter(question.numbers))
    _, half = shown(text)
    off = {text: f"{question.numbers[text]} + {2.5 * half}"}
    spoilt = questions.Question(question.id, question.section, question.ask, question.options, off, ())
    assert len(disagreement(spoilt)) == 1


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_right_option_stands_at_each_place_equally_often(chapter):
    places = [question.right for question in BANKS[chapter]]
    counts = [places.count(place) for place in range(4)]
    assert max(counts) - min(counts) <= 1


def test_the_length_of_an_option_does_not_give_it_away():
    lengths = [([len(option.text) for option in q.options], q.right) for q in QUESTIONS.values()]
    longest = sum(row[right] == max(row) and row.count(max(row)) == 1 for row, right in lengths)
    shortest = sum(row[right] == min(row) and row.count(min(row)) == 1 for row, right in lengths)
    # Who always takes the longest, or the shortest, is right in a quarter of the cases, but for three standard errors.
    bound = len(lengths) / 4 + 3 * (len(lengths) * 3 / 16) ** 0.5
    assert max(longest, shortest) < bound
    right = sum(row[right] for row, right in lengths) / len(lengths)
    wrong = sum(sum(row) - row[right] for row, right in lengths) / 3 / len(lengths)
    assert 0.9 < right / wrong < 1.1


def test_no_option_and_no_reason_is_said_twice():
    for name, question in QUESTIONS.items():
        assert len({option.text for option in question.options}) == 4, name
        assert len({option.why for option in question.options}) == 4, name


GOOD = """\
- id: one
  section: A section
  ask: What is $\\nabla x$?
  options:
  - {right: One., why: It is.}
  - {wrong: Two., why: It is not.}
  - {wrong: Three., why: Nor is this.}
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("id: one", "id: One thing", "small letters"),
        ("wrong: Two.", "right: Two.", "one right one"),
        ("right: One.", "wrong: One.", "one right one"),
        ("  - {wrong: Two., why: It is not.}\n", "", "three options"),
        (", why: It is.", "", "an option has"),
        ("section:", "chapter:", "expected the keys"),
        (GOOD, GOOD + GOOD, "two questions have the id one"),
    ],
)
def test_an_entry_that_is_no_question_is_named(tmp_path, old, new, message):
    (tmp_path / "bank.yaml").write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=f"^bank.yaml.*{message}"):
        questions.bank(tmp_path / "bank.yaml")


def test_a_number_stays_as_it_was_typed(tmp_path):
    (tmp_path / "bank.yaml").write_text(GOOD.replace("One.", "0.10"), encoding="utf-8")
    assert questions.bank(tmp_path / "bank.yaml")[0].options[0].text == "0.10"


# What Moodle does with a text, in its order: it hides a doubled backslash and the signs after a single one, splits, and
# puts them back. (Class qformat_gift: escapedchar_pre, escapedchar_post.)
SIGNS = {r"\\": "&&092;", r"\:": "&&058;", r"\#": "&&035;", r"\=": "&&061;", r"\{": "&&123;", r"\}": "&&125;"}
SIGNS |= {r"\~": "&&126;", r"\n": "&&010"}


def hidden(text):
    for typed, code in SIGNS.items():
        text = text.replace(typed, code)
    return text


def back(text):
    for typed, code in SIGNS.items():
        text = text.replace(code, "\n" if typed == r"\n" else typed[1])
    return text.strip()


def read_by_moodle(text):
    """Question name, text and options (right or not, text, feedback), as Moodle's importer finds them."""
    found = []
    for block in re.split(r"\n\s*\n", text):
        block = hidden(block.strip())
        if not block or block.startswith("$CATEGORY"):
            continue
        before, _, answers = block.partition("{")
        answers = answers[: answers.rindex("}")]
        _, name, ask = before.split("::", 2)
        options = re.findall(r"([=~])([^=~]*)", answers)
        split = [(sign == "=", *(back(part) for part in body.split("#", 1))) for sign, body in options]
        found.append((back(name), back(ask).removeprefix("[html]"), split))
    return found


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_moodle_reads_what_the_bank_has(chapter):
    written = [
        (
            f"{chapter} {question.id}",
            questions.inline(question.ask),
            [(o.right, questions.inline(o.text), questions.inline(o.why)) for o in question.options],
        )
        for question in BANKS[chapter]
    ]
    assert read_by_moodle(questions.gift(chapter, BANKS[chapter])) == written


def test_without_the_doubled_backslash_a_gradient_would_break_in_two():
    text = questions.gift("a", BANKS["score_matching"]).replace(r"\\", "\\")
    asked = [ask for _, ask, options in read_by_moodle(text) for ask in [ask, *(why for *_, why in options)]]
    assert any("\nabla" in ask for ask in asked)


def test_formulas_code_and_signs_become_html():
    assert questions.inline("*Is* `a<b` and $x < \\sigma$?") == (
        "<em>Is</em> <code>a&lt;b</code> and \\(x &lt; \\sigma\\)?"
    )
    assert questions.inline("$x$", "<i>{}</i>") == r"<i>\(x\)</i>"


@pytest.mark.parametrize("name", QUESTIONS)
def test_no_formula_is_left_as_dollars(name):
    question = QUESTIONS[name]
    for text in [question.ask, *(o.text for o in question.options), *(o.why for o in question.options)]:
        assert "$" not in html.unescape(questions.inline(text))


def test_the_command_writes_a_file_for_each_chapter(tmp_path, capsys):
    questions.main(tmp_path / "bank")
    assert sorted(path.stem for path in (tmp_path / "bank").iterdir()) == CHAPTERS
    assert f"{len(QUESTIONS)} questions" in capsys.readouterr().out
