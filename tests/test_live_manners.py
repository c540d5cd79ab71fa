"""What every figure that lives owes its reader: a link to what is seen, stillness, no growth, an end of what fails."""

import base64
import json

import pytest
from live import page
from test_live import FIGURES, LONGEST_WAIT, TOLD, readings

ROOT = "document.querySelector('.scorebook-live')"
FIGURE = f"{ROOT}.scorebook"
RUNNING = [name for name in FIGURES if name not in ("score_matching", "probability_flow")]  # the others take no steps
GROWTH = 400_000  # bytes that a page may hold more after five minutes than after one, of several millions


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Files with one figure each, and room above and below."""
    folder = tmp_path_factory.mktemp("pages")
    for name in FIGURES:
        text = page(name)
        tall = '<div style="height: 3000px"></div>'
        text = text.replace('<div id="figure">', f'{tall}<div id="figure">').replace("<script>", f"{tall}<script>", 1)
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def open_figure(chromium, pages):
    """Opens a figure's page in a browser of its own; what went wrong in it is in .troubles, and has to be nothing."""
    contexts, opened = [], []

    def show(name, address="", motion="reduce"):
        context = chromium.new_context(viewport={"width": 800, "height": 900}, reduced_motion=motion, has_touch=True)
        contexts.append(context)
        shown = context.new_page()
        shown.set_default_timeout(LONGEST_WAIT)
        shown.troubles = []
        shown.on("pageerror", lambda error: shown.troubles.append(str(error)))
        shown.goto((pages / f"{name}.html").as_uri() + address)
        shown.locator(".scorebook-live").wait_for()
        opened.append(shown)
        return shown

    yield show
    troubles = [trouble for shown in opened for trouble in shown.troubles]
    for context in contexts:
        context.close()
    assert troubles == []


def steps(shown):
    return shown.evaluate(f"Number({ROOT}.dataset.steps)")


def settled(shown):
    """Two frames later, when what a change has asked for is drawn."""
    shown.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def state_and_readings(shown, n_steps=5):
    """The state, and what is read after so many steps from the beginning. How long it took is the machine's."""
    shown.evaluate(f"{FIGURE}.pause(); {FIGURE}.start(); {FIGURE}.advance({n_steps})")
    told = [reading | {"text": None} for reading in readings(shown) if not reading["label"].startswith("seconds")]
    return shown.evaluate(f"{FIGURE}.state"), json.dumps(told)


@pytest.mark.site
@pytest.mark.parametrize("name", FIGURES)
def test_a_link_opens_the_figure_as_it_was(open_figure, name):
    shown = open_figure(name)
    for handle in shown.locator(".sl-handle").all():
        handle.focus()
        for key in ("ArrowRight", "ArrowUp", "ArrowUp"):
            shown.keyboard.press(key)
    for slider in shown.locator("input[role=slider]").all():
        slider.focus()
        shown.keyboard.press("ArrowLeft")
        shown.keyboard.press("ArrowLeft")
    for choice in shown.locator(".scorebook-live select").all():
        choice.select_option(index=1)
    for seed in shown.locator(".sl-seed input").all():
        seed.fill("7")
        seed.press("Enter")
    settled(shown)
    shown.evaluate(f"{FIGURE}.pause()")
    shown.get_by_role("button", name="Link").click()
    shown.wait_for_function("location.hash.length > 10")
    state, told = state_and_readings(shown)
    changed = [key for key in state if state[key] != TOLD[name]["state"][key]]
    assert len(changed) >= len(state) - 1  # the start of a crowd, or a brush, may be where it was
    again = open_figure(name, shown.evaluate("location.hash"))
    again.wait_for_function(f"{ROOT}.getBoundingClientRect().top < innerHeight && scrollY > 1000")
    assert state_and_readings(again) == (state, told)
    again.get_by_role("button", name="Reset").click()
    assert again.evaluate(f"{FIGURE}.state") == TOLD[name]["state"]


def encoded(name, state):
    return f"#live-{name}-" + base64.urlsafe_b64encode(json.dumps(state).encode()).decode().rstrip("=")


@pytest.mark.site
@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("langevin", "#live-langevin-%%"),
        ("langevin", encoded("langevin", {"step": "large", "law": None})),
        ("langevin", encoded("langevin", {"unheard-of": 1})),
        ("langevin", encoded("langevin", {"at": [1]})),
        ("langevin", encoded("langevin", {"rule": "unheard-of"})),
        ("langevin", encoded("langevin", {"law": TOLD["langevin"]["state"]["law"] | {"weights": [4, 5]}})),
        ("sde", encoded("sde", {"process": "unheard-of"})),
        ("sde", encoded("langevin", {"step": 0.3})),
    ],
)
def test_a_link_to_no_state_opens_the_first(open_figure, name, address):
    shown = open_figure(name, address)
    assert shown.evaluate(f"{FIGURE}.state") == TOLD[name]["state"]
    # The same where the page is open already.
    shown.evaluate("hash => { location.hash = hash }", address)
    settled(shown)
    assert shown.evaluate(f"{FIGURE}.state") == TOLD[name]["state"]


@pytest.mark.site
@pytest.mark.parametrize("name", FIGURES)
def test_where_motion_is_unwelcome_nothing_moves_until_it_is_asked_to(open_figure, name):
    shown = open_figure(name)
    shown.locator(".sl-planes").scroll_into_view_if_needed()
    shown.wait_for_timeout(500)
    assert steps(shown) == 0
    assert shown.evaluate("document.getAnimations().length") == 0
    run = shown.locator(".sl-run")
    if run.count():
        assert run.get_attribute("aria-pressed") == "false"
        run.click()
        shown.wait_for_function(f"{ROOT}.dataset.steps > 0")


@pytest.mark.site
def test_the_home_page_s_figure_moves_within_two_seconds_of_being_seen_and_stops_at_a_tap(open_figure):
    shown = open_figure("home", motion="no-preference")
    shown.wait_for_timeout(300)
    assert steps(shown) == 0
    shown.locator(".sl-planes").scroll_into_view_if_needed()
    shown.wait_for_timeout(2000)
    assert steps(shown) > 0  # how many is the machine's
    shown.locator(".sl-run").tap()
    was = steps(shown)
    shown.wait_for_timeout(300)
    assert steps(shown) == was


HIDE = (
    "Object.defineProperty(document, 'hidden', {{ configurable: true, get: () => {} }});"
    "document.dispatchEvent(new Event('visibilitychange'))"
)


@pytest.mark.site
@pytest.mark.parametrize("name", RUNNING)
def test_nothing_steps_off_the_screen_or_in_a_hidden_tab(open_figure, name):
    shown = open_figure(name)
    # Slowly, lest a figure that comes to an end be there too soon.
    shown.evaluate(f"{FIGURE}.acts.rate = () => 8")
    shown.locator(".sl-run").click()
    away = {
        "scrolled up": ("scrollTo(0, 0)", f"{ROOT}.scrollIntoView()"),
        "scrolled down": ("scrollTo(0, 1e6)", f"{ROOT}.scrollIntoView()"),
        "hidden": (HIDE.format("true"), HIDE.format("false")),
    }
    for way, (go, come_back) in away.items():
        was = steps(shown)
        shown.wait_for_function(f"{ROOT}.dataset.steps > {was}")
        shown.evaluate(go)
        shown.wait_for_timeout(150)
        was = steps(shown)
        shown.wait_for_timeout(500)
        assert steps(shown) == was, way
        shown.evaluate(come_back)
    shown.wait_for_function(f"{ROOT}.dataset.steps > {was}")
    assert shown.locator(".sl-run").get_attribute("aria-pressed") == "true"


# Ten frames a second, as on a slow machine: six times as many steps in each as at sixty, hence all steps of a minute.
# Of three figures, whose frames take long, a part of it.
FRAMES = {"sde": 40, "digits": 40, "controllable_generation": 200}
A_MINUTE = """frames => {
    const figure = document.querySelector(".scorebook-live").scorebook, later = window.requestAnimationFrame;
    let now = performance.now();
    window.requestAnimationFrame = () => 0;
    figure.seen = true;
    for (let frame = 0; frame < frames; frame++) {
        if (!figure.running) figure.run();
        now += 100;
        figure.frame(now);
    }
    figure.pause();
    window.requestAnimationFrame = later;
}"""


def held(shown):
    """Bytes that scripts hold, and nodes of the page and their listeners."""
    asked = shown.context.new_cdp_session(shown)
    settled(shown)
    for _ in range(3):
        asked.send("HeapProfiler.collectGarbage")
    used = asked.send("Runtime.getHeapUsage")
    counted = asked.send("Memory.getDOMCounters")
    asked.detach()
    return used["usedSize"] + used.get("backingStorageSize", 0), counted["nodes"], counted["jsEventListeners"]


@pytest.mark.site
@pytest.mark.parametrize("name", RUNNING)
def test_memory_after_five_minutes_is_what_it_was_after_one(open_figure, name):
    shown, minute = open_figure(name), FRAMES.get(name, 600)
    shown.evaluate(A_MINUTE, minute)
    after_one, nodes, listeners = held(shown)
    shown.evaluate(A_MINUTE, 4 * minute)
    after_five, more_nodes, more_listeners = held(shown)
    assert after_five - after_one < GROWTH
    assert (more_nodes, more_listeners) == (nodes, listeners)


NO_NUMBERS = f"{FIGURE}.rng.normal = {FIGURE}.rng.uniform = () => NaN"
TWO_MODES = TOLD["langevin"]["state"]["law"]
ONE_MODE, ONE_PLACE = {"law": TWO_MODES | {"weights": [0, 1]}}, {"law": TWO_MODES | {"means": [[1, 1], [1, 1]]}}
# What a reader, a link or a program may do to a figure, and whether it comes to an end with it.
STRAINED = {
    "a step that explodes": ("langevin", {"step": 2.5}, "", True),
    "a step up that explodes": ("langevin", {"step": 2.5, "rule": "ascent"}, "", True),
    "a step too large to be accepted": ("langevin", {"step": 50, "rule": "metropolis"}, "", False),
    "a schedule that explodes": ("noise_scales", {"step": 5.0}, "", True),
    "a solver that explodes": ("probability_flow", {"point": [1e6, 1e6]}, "", True),
    "a pad that explodes": ("digits", {"known": [1e200] + [-2] * 63}, "", True),
    "a weight of zero": ("langevin", ONE_MODE, "", False),
    "a weight of zero, noised": ("noise_scales", ONE_MODE, "", False),
    "modes in one place": ("langevin", ONE_PLACE, "", False),
    "modes in one place, noised": (
        "noise_scales",
        {"law": TOLD["noise_scales"]["state"]["law"] | ONE_PLACE},
        "",
        False,
    ),
    "no distance": ("score_matching", {"distance": 0}, "", False),
    "a narrow error bar": ("controllable_generation", {"noise": 0.01, "method": "posterior"}, "", False),
    "ten steps of VE": ("sde", {"process": "ve", "n": 10, "t": 1}, "", False),
}
STRAINED |= {f"no numbers, {name}": (name, {}, NO_NUMBERS, True) for name in RUNNING if name != "digits"}
STRAINED |= {
    f"all modes in one place, {name}": (
        name,
        {"law": TOLD[name]["state"]["law"] | {"means": [[0.5, 0.5]] * len(TOLD[name]["state"]["law"]["means"])}},
        "",
        False,
    )
    for name in ("home", "sde", "probability_flow", "controllable_generation")
}


@pytest.mark.site
@pytest.mark.parametrize("case", STRAINED)
def test_what_went_wrong_is_said_and_a_reset_goes_on(open_figure, case):
    name, state, then, ends = STRAINED[case]
    shown = open_figure(name)
    shown.evaluate(f"state => {FIGURE}.restore({{...{FIGURE}.first, ...state}})", state)
    shown.evaluate(f"{then or 0}; {FIGURE}.advance(420)")
    settled(shown)
    root = shown.locator(".scorebook-live")
    told = shown.locator(".sl-says")
    assert (root.get_attribute("data-exploded") == "true") is ends
    if ends:
        assert "reset" in told.inner_text()
        assert "sl-trouble" in told.get_attribute("class")
        assert not shown.locator(".sl-run:enabled").count()
        shown.evaluate(f"{FIGURE}.run(); {FIGURE}.advance(3)")
        assert shown.evaluate(f"{FIGURE}.running") is False
    else:
        assert "not a number" not in "".join(reading["text"] for reading in readings(shown))
    shown.get_by_role("button", name="Reset").click()
    assert root.get_attribute("data-exploded") is None
    assert told.inner_text() == ""
    assert shown.evaluate(f"{FIGURE}.state") == TOLD[name]["state"]
    shown.evaluate(f"{FIGURE}.advance(16)")
    assert steps(shown) == (16 if name in RUNNING else 0)
    measured = [reading["measured"] for reading in readings(shown)]
    assert any(number is not None and number == number for number in measured)
    if name in RUNNING and name != "digits":  # all of its steps are taken
        shown.locator(".sl-run").click()
        shown.wait_for_function(f"{ROOT}.dataset.steps > 16")


@pytest.mark.site
@pytest.mark.parametrize("way", ["pointer", "touch", "key"])
def test_the_pad_for_digits_is_painted_by_pointer_touch_and_key(open_figure, way):
    shown = open_figure("digits")
    pad = shown.locator(".sl-pad")
    pad.scroll_into_view_if_needed()
    shown.get_by_role("button", name="Clear the pad").click()
    shown.evaluate(f"{FIGURE}.pause()")
    assert shown.evaluate(f"{FIGURE}.state.known") == [-2] * 64
    box = shown.evaluate(
        f"(({{ x, y, surface }}) => {{ const box = surface.getBoundingClientRect();"
        f"return [box.left + x(0), box.top + y(8), (x(8) - x(0)) / 8] }})({FIGURE}.planes[0])"
    )
    left, top, side = box
    places = [(left + (1.5 + 5 * share) * side, top + 2.5 * side) for share in (0, 0.5, 1)]
    scrolled = shown.evaluate("scrollY")
    if way == "pointer":
        shown.mouse.move(*places[0])
        shown.mouse.down()
        for place in places[1:]:
            shown.mouse.move(*place)
        shown.mouse.up()
    elif way == "touch":
        touch = shown.context.new_cdp_session(shown)
        for kind, (x, y) in zip(("touchStart", "touchMove", "touchMove"), places, strict=True):
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    else:
        brush = shown.locator(".sl-handle")
        brush.focus()
        for key in ("ArrowUp",) * 2 + ("ArrowLeft",) * 2:
            shown.keyboard.press(key)
        assert shown.evaluate(f"{FIGURE}.state.known") == [-2] * 64
        assert brush.get_attribute("aria-valuetext") == "row 3, column 2: unknown"
        shown.keyboard.press("Space")
        assert brush.get_attribute("aria-valuetext") == "row 3, column 2: ink"
        for key in ("ArrowRight", "Space") * 5:
            shown.keyboard.press(key)
    # Six cells of the third row, those between two places where the hand was seen among them.
    assert [i for i, value in enumerate(shown.evaluate(f"{FIGURE}.state.known")) if value == 1] == list(range(17, 23))
    assert shown.evaluate("scrollY") == scrolled
    # Then digits are drawn to go with it, by themselves.
    shown.wait_for_function(f"{ROOT}.dataset.steps == 16")
