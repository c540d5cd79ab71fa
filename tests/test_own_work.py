"""The recipes of the page *Use it in your own work* run as they stand, and end where the page says, near the truth."""

import contextlib
import io
import re

import pytest

pytestmark = pytest.mark.xdist_group("own work")  # one worker runs the recipes, once

PAGE = "own_work.md"
NUMBER = r"-?\d+\.\d+"
# How far a network that is trained for a thousand steps may be off, and how far a run elsewhere from the one shown.
ACCURACY = 0.1


@pytest.fixture(scope="module")
def text(root):
    return (root / "book" / PAGE).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def recipes(text):
    """By title: its code, what the page shows and what it prints."""
    namespace, found = {}, {}
    for title, body in re.findall(r"^##? (.*?)\n(.*?)(?=^## |\Z)", text, re.S | re.M):
        code, shown, printed = [], "", io.StringIO()
        for block, output in re.findall(r"^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", body, re.S | re.M):
            with contextlib.redirect_stdout(printed):
                exec(compile(block, PAGE, "exec"), namespace)
            code.append(block)
            shown += output
        found[title] = "".join(code), shown, printed.getvalue()
    return found


def test_each_recipe_ends_in_a_number_with_its_truth(recipes):
    assert len(recipes) == 12
    for title, (_, shown, printed) in list(recipes.items())[1:]:
        assert re.sub(NUMBER, "#", printed) == re.sub(NUMBER, "#", shown), title
        for line, line_shown in zip(printed.splitlines(), shown.splitlines(), strict=True):
            numbers, as_shown = ([float(n) for n in re.findall(NUMBER, part)] for part in (line, line_shown))
            assert re.search(rf"\((truth|exact score) {NUMBER}\)$", line), title
            assert abs(numbers[0] - numbers[-1]) <= ACCURACY, line
            assert max(abs(a - b) for a, b in zip(numbers, as_shown, strict=True)) <= ACCURACY, (line, line_shown)


def test_the_table_on_top_leads_to_each_recipe(text, recipes):
    goals = re.findall(r"\]\((own-[a-z-]+)\) \|$", text, re.M)
    assert goals == re.findall(r"^\((own-[a-z-]+)\)=\n## ", text, re.M)
    assert len(goals) == len(recipes) - 1


def test_lines_of_code_are_read_without_scrolling(text):
    lines = [line for block in re.findall(r"^```python\n(.*?)^```$", text, re.S | re.M) for line in block.splitlines()]
    assert max(map(len, lines)) <= 88
