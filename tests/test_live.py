"""Figures that live: the bundle is what the sources give, Python has the state, a page computes what Python does."""

import base64
import builtins
import json
import os
import re
import shutil
from collections.abc import Callable
from importlib import import_module, resources
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from browser import fetch
from ipywidgets.embed import dependency_state
from live import LIVE, built, bundled, page

from scorebook import lab, probability_flow, sde

ROOT = Path(__file__).resolve().parent.parent
TOLD = json.loads((LIVE / "figures.json").read_text(encoding="utf-8"))
FIGURES = sorted(TOLD)
LONGEST_WAIT = 300_000


@pytest.fixture(scope="module")
def anew(tmp_path_factory):
    if failure := fetch(ROOT, tests=True):
        pytest.fail(failure) if os.environ.get("CI") else pytest.skip(f"npm brings no esbuild: {failure}")
    return built(tmp_path_factory.mktemp("bundle"))


def test_the_bundle_is_what_the_sources_give(anew):
    for name, text in zip(("bundle.js", "figures.json", "LICENSES.txt"), anew, strict=True):
        assert (LIVE / name).read_text(encoding="utf-8") == text


def test_the_terms_of_what_is_in_the_bundle_travel_with_it():
    terms = resources.files("scorebook.lab").joinpath("live", "LICENSES.txt").read_text(encoding="utf-8")
    for name in ("d3-contour", "d3-scale", "d3-random", "d3-array", "pure-rand"):
        assert re.search(rf"^{name} [\d.]+$", terms, re.M)
    assert terms.count("WITHOUT WARRANTY OF ANY KIND") + terms.count("DISCLAIMS ALL WARRANTIES") == terms.count("---\n")
    assert "LICENSES.txt" in (LIVE / "bundle.js").read_text(encoding="utf-8")[:200]


def test_the_bundle_is_small_and_asks_nobody():
    bundle = (LIVE / "bundle.js").read_text(encoding="utf-8")
    assert len(bundle.encode()) <= 145_000
    assert "http://" not in bundle.replace("http://www.w3.org/", "")
    assert "https://" not in bundle


@pytest.mark.parametrize("name", FIGURES)
def test_each_figure_says_what_it_shows_and_has_a_still(name):
    assert len(TOLD[name]["alt"]) > 60
    picture = resources.files("scorebook.lab") / "live" / "stills" / f"{name}.png"
    assert picture.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("name", FIGURES)
def test_the_state_is_saved_whole_and_the_bundle_once(name):
    first, second = lab.live(name), lab.live(name, seed=3)
    both = dependency_state([first, second], drop_defaults=False)
    models = {key: model["state"] for key, model in both.items()}
    assert models[first.model_id]["state"] == TOLD[name]["state"]
    assert models[second.model_id]["state"]["seed"] == 3
    assert models[first.model_id]["_view_name"] == "AnyView"
    heavy = [state for state in models.values() if len(json.dumps(state)) > 50_000]
    assert [state["source"].startswith("/*! scorebook") for state in heavy] == [True]
    assert sum("source" in state for state in models.values()) == 1
    data, _ = first._repr_mimebundle_()
    assert base64.b64decode(data["image/png"])[:4] == b"\x89PNG"


def test_python_has_the_law_and_the_crowd():
    law = lab.GaussianMixture([0.4, 0.6], [[-1.0, 0.0], [2.0, 1.0]], [0.25, 4.0])
    figure = lab.live("langevin", law=law, step=0.3)
    assert figure.state["law"]["stds"] == [0.5, 2]
    x = torch.randn(7, 2, dtype=torch.double)
    assert torch.allclose(figure.law.log_prob(x), law.to(dtype=torch.double).log_prob(x), rtol=1e-5)
    assert figure.samples.shape == (0, 2)
    figure.crowd = x.numpy().tobytes()
    assert torch.equal(figure.samples, x)
    figure.law = lab.GaussianMixture([0.5, 0.5], [[0.0, 0.0], [3.0, 3.0]], 1.0)
    assert figure.state["law"]["means"] == [[0, 0], [3, 3]]
    assert figure.state["step"] == 0.3


@pytest.mark.parametrize(
    ("arguments", "error", "complaint"),
    [
        ({"name": "lanjevin"}, ValueError, "name must be one of .*langevin.*, got 'lanjevin'"),
        ({"stepp": 1.0}, ValueError, "has seed, law, .* and no 'stepp'"),
        ({"step": "big"}, TypeError, "step must be like 0.1, got 'big'"),
        ({"seed": True}, TypeError, "seed must be like 0, got True"),
        ({"law": {"weights": [1.0]}}, TypeError, "law must have weights, means, stds, got weights"),
        (
            {"law": {"weights": [0.5, 0.7], "means": [[0.0, 0.0], [1.0, 1.0]], "stds": [1.0, 1.0]}},
            ValueError,
            "weights must",
        ),
        (
            {"law": lab.GaussianMixture([1.0], torch.zeros(1, 2), torch.tensor([[[1.0, 0.5], [0.5, 1.0]]]))},
            ValueError,
            "law must have isotropic components",
        ),
    ],
)
def test_wrong_arguments_are_named(arguments, error, complaint):
    with pytest.raises(error, match=complaint):
        lab.live(**{"name": "langevin"} | arguments)


def test_without_anywidget_there_is_a_picture_and_what_to_install(monkeypatch):
    module = import_module("scorebook.lab.live")
    imported = builtins.__import__

    def refuse(name, *rest):
        if name.split(".")[0] == "anywidget":
            raise ImportError(name)
        return imported(name, *rest)

    module._widget.cache_clear()
    monkeypatch.setattr(builtins, "__import__", refuse)
    shown = lab.live("langevin")._repr_mimebundle_()
    monkeypatch.undo()
    module._widget.cache_clear()
    assert "pip install --no-deps anywidget psygnal" in shown["text/plain"]
    assert 'src="data:image/png;base64,' in shown["text/html"]
    assert TOLD["langevin"]["alt"] in shown["text/html"]


def test_a_law_of_other_parts_than_the_figure_has_is_refused():
    three = lab.GaussianMixture([0.2, 0.3, 0.5], torch.zeros(3, 2), 1.0)
    with pytest.raises(ValueError, match="law must have 2 components in 2 dimensions, got 3 in 2"):
        lab.live("langevin", law=three)
    figure = lab.live("monte_carlo")
    with pytest.raises(ValueError, match="law must have 2 components in 1 dimension, got 3 in 2"):
        figure.law = three


# In a browser. A page holds one figure, in the look of the book.

# A model as anywidget hands it to a figure, with a kernel: it keeps what would be sent to Python.
MODEL = """([name, state]) => {
    const old = document.querySelector(".scorebook-live"), el = document.createElement("div");
    const weights = old.scorebook.weights, kept = { figure: name, state, weights }, follows = {};
    old.scorebook.remove();
    old.replaceWith(el);
    window.told = {};
    window.model = {
        widget_manager: { kernel: {} },
        get: (key) => kept[key],
        set: (key, value) => { kept[key] = value; window.told[key] = value; },
        save_changes: () => {},
        on: (event, act) => { follows[event] = act; },
        off: () => {},
        receive: (key, value) => { kept[key] = value; follows[`change:${key}`]?.(); },
    };
    scorebookLive.render({ model: window.model, el });
}"""


def sent(opened):
    """What the figure has told Python, as a message of ipywidgets."""
    told = opened.evaluate(
        """() => ({ state: window.told.state, crowd: window.told.crowd
            ? Array.from(new Float64Array(window.told.crowd.buffer)) : null })"""
    )
    data = {"method": "update", "state": {"state": told["state"]}, "buffer_paths": []}
    if told["crowd"] is None:
        return {"content": {"data": data}, "buffers": []}
    data["buffer_paths"] = [["crowd"]]
    return {
        "content": {"data": data},
        "buffers": [memoryview(torch.tensor(told["crowd"], dtype=torch.double).numpy().tobytes())],
    }


@pytest.mark.site
@pytest.mark.parametrize("name", FIGURES)
def test_python_has_what_was_dragged_and_the_figure_what_python_sets(chromium, name):
    opened = chromium.new_page(reduced_motion="reduce")
    opened.set_default_timeout(LONGEST_WAIT)
    opened.set_content(page(name))
    figure = lab.live(name, seed=5)
    opened.evaluate(MODEL, [name, figure.state])
    root = opened.locator(".scorebook-live")
    assert root.get_attribute("data-seed") == "5"
    assert not root.get_by_role("button", name="Link").count()
    for handle in opened.locator(".sl-handle").all():
        handle.focus()
        opened.keyboard.press("ArrowRight")
        opened.keyboard.press("ArrowUp")
    figure._handle_msg(sent(opened))
    assert figure.state == opened.evaluate("document.querySelector('.scorebook-live').scorebook.state")
    assert figure.state != lab.live(name, seed=5).state
    if "law" in figure.state:
        moved = figure.law.means - torch.tensor(TOLD[name]["state"]["law"]["means"], dtype=torch.double)
        assert (moved[:, 0] > 0.01).all() or name == "sliced"  # whose law is not the reader's
        figure.law = lab.GaussianMixture(figure.law.weights, figure.law.means - 0.25, figure.law.covariances)
    else:
        assert name in ("score_matching", "digits")
        with pytest.raises(AttributeError, match=f"'{name}' has no law"):
            _ = figure.law
        figure.state = figure.state | {"seed": 6}
    opened.evaluate("state => window.model.receive('state', state)", figure.state)
    shown = opened.evaluate("document.querySelector('.scorebook-live').scorebook.state")
    if name == "probability_flow":  # its point lies on the path to the code
        shown, figure.state = ({k: v for k, v in state.items() if k != "point"} for state in (shown, figure.state))
    assert shown == figure.state
    step = opened.get_by_role("button", name="Step", exact=True)
    if step.count():
        for _ in range(3):
            step.click()
    figure._handle_msg(sent(opened))
    n = {"score_matching": 0, "monte_carlo": 0, "sliced": 0, "probability_flow": 600, "digits": 32}.get(name)
    crowd = opened.evaluate(
        "(() => { const crowd = document.querySelector('.scorebook-live').scorebook.acts.crowd?.();"
        "return crowd ? Array.from(crowd) : [] })()"
    )
    width = 64 if name == "digits" else 2
    assert figure.samples.shape == (len(crowd) // width, width)
    assert n in (None, len(figure.samples))
    assert figure.samples.flatten().tolist() == crowd
    opened.close()


@pytest.fixture(scope="module")
def shown(request, chromium, tmp_path_factory):
    """One figure in a page of its own, from a file; whatever went wrong is in .troubles."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page(request.param), encoding="utf-8")
    context = chromium.new_context(viewport={"width": 800, "height": 1000}, has_touch=True, reduced_motion="reduce")
    opened = context.new_page()
    opened.set_default_timeout(LONGEST_WAIT)
    opened.name, opened.troubles = request.param, []
    opened.on("request", lambda r: r.url.startswith(("file:", "data:", "blob:")) or opened.troubles.append(r.url))
    opened.on("pageerror", lambda error: opened.troubles.append(f"script error: {error}"))
    opened.on("console", lambda m: m.type == "error" and opened.troubles.append(f"console: {m.text}"))
    opened.goto(path.as_uri())
    opened.locator(".scorebook-live").wait_for()
    yield opened
    context.close()


on_each = pytest.mark.parametrize("shown", FIGURES, indirect=True)


def readings(shown):
    return shown.locator(".scorebook-live output").evaluate_all(
        """all => all.map(o => Object.assign(
            {label: o.getAttribute("aria-label"), text: o.textContent},
            Object.fromEntries(["measured", "truth", "error"].map(key => [key, parseFloat(o.dataset[key])]))))"""
    )


def at_first(shown):
    shown.get_by_role("button", name="Reset").click()


@pytest.mark.site
@on_each
def test_what_can_be_dragged_moves_by_pointer_touch_and_key(shown):
    at_first(shown)
    handles = shown.locator(".sl-handle[role=slider]:visible")
    sliders = shown.locator("input[role=slider]")
    assert handles.count() + sliders.count() > 0
    touch = shown.context.new_cdp_session(shown)
    for handle in handles.all():
        handle.scroll_into_view_if_needed()
        assert handle.get_attribute("aria-label")
        before = handle.get_attribute("aria-valuetext")
        handle.focus()
        for key in ("ArrowRight", "ArrowUp", "ArrowUp"):
            shown.keyboard.press(key)
        by_key = handle.get_attribute("aria-valuetext")
        assert by_key != before
        for way in ("mouse", "touch"):
            shown.wait_for_timeout(60)
            box, was = handle.bounding_box(), handle.get_attribute("aria-valuetext")
            x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
            if way == "mouse":
                shown.mouse.move(x, y)
                shown.mouse.down()
                shown.mouse.move(x - 22, y + 17, steps=4)
                shown.mouse.up()
            else:
                where = [(x, y), (x + 9, y - 8), (x + 18, y - 19)]
                for kind, (u, v) in zip(("touchStart", "touchMove", "touchMove"), where, strict=True):
                    touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": u, "y": v}]})
                touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
            shown.wait_for_timeout(60)
            assert handle.get_attribute("aria-valuetext") != was, way
    for slider in sliders.all():
        was = slider.get_attribute("aria-valuetext")
        assert was
        slider.focus()
        shown.keyboard.press("ArrowLeft")
        shown.keyboard.press("ArrowLeft")
        assert slider.get_attribute("aria-valuetext") != was
        shown.keyboard.press("ArrowRight")
        shown.keyboard.press("ArrowRight")


@pytest.mark.site
@on_each
def test_it_runs_pauses_steps_and_starts_anew(shown):
    at_first(shown)
    root, run = shown.locator(".scorebook-live"), shown.locator(".sl-run")
    assert root.get_attribute("data-steps") == "0"
    assert root.get_attribute("data-seed") == "0"
    if not run.count():
        return
    run.scroll_into_view_if_needed()
    # Slowly, lest it come to its end by itself.
    shown.evaluate("document.querySelector('.scorebook-live').scorebook.acts.rate = () => 6")
    run.click()
    assert run.get_attribute("aria-pressed") == "true"
    shown.wait_for_function("Number(document.querySelector('.scorebook-live').dataset.steps) > 2")
    run.click()
    assert run.get_attribute("aria-pressed") == "false"
    steps = root.get_attribute("data-steps")
    shown.wait_for_timeout(150)
    assert root.get_attribute("data-steps") == steps
    shown.get_by_role("button", name="Reset").click()
    assert root.get_attribute("data-steps") == "0"


@pytest.mark.site
@on_each
def test_no_one_is_kept_out_in_light_and_dark_and_on_a_phone(shown):
    at_first(shown)
    axe = (ROOT / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
    shown.evaluate(axe)
    levels = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
    for theme, width in (("light", 800), ("dark", 390)):
        shown.set_viewport_size({"width": width, "height": 1000})
        shown.evaluate(
            "theme => { document.documentElement.dataset.theme = theme;"
            "document.body.style.background = 'var(--pst-color-background)';"
            "document.querySelector('body > div').style.width = 'auto' }",
            theme,
        )
        shown.wait_for_timeout(200)
        found = shown.evaluate("levels => axe.run(document, {runOnly: levels, resultTypes: ['violations']})", levels)
        assert [f"{v['id']}: {node['html'][:200]}" for v in found["violations"] for node in v["nodes"]] == []
        assert shown.evaluate("document.scrollingElement.scrollWidth") <= width
        paper = shown.locator("canvas").first.evaluate(
            "c => [...c.getContext('2d').getImageData(c.width - 2, 1, 1, 1).data]"
        )
        assert paper[3] < 255 or max(paper[:3]) < 250 or theme == "light"
    shown.set_viewport_size({"width": 800, "height": 1000})
    shown.evaluate("document.documentElement.dataset.theme = 'light'")


def law_of(name):
    return lab.GaussianMixture(
        *(torch.tensor(TOLD[name]["state"]["law"][key], dtype=torch.double) for key in ("weights", "means")),
        torch.tensor(TOLD[name]["state"]["law"]["stds"], dtype=torch.double) ** 2,
    )


def kl_from_equal_weights():
    means, x = (
        torch.tensor([[-4.0], [4.0]], dtype=torch.double),
        torch.linspace(-16, 16, 4001, dtype=torch.double)[:, None],
    )
    p, q = (lab.GaussianMixture([w, 1 - w], means, 1.0).to(dtype=torch.double) for w in (0.2, 0.5))
    p, q = p.log_prob(x), q.log_prob(x)
    return torch.trapezoid(p.exp() * (p - q), x[:, 0]).item()


def trace_at_the_point():
    at = torch.tensor(TOLD["sliced"]["state"]["spot"], dtype=torch.double)
    jacobian = torch.autograd.functional.jacobian(lambda x: law_of("sliced").score(x[None])[0], at)
    return jacobian.trace().item()


def log_p_by_python():
    vp, law = sde.VPSDE(), law_of("probability_flow")
    t, point = torch.tensor(1e-3, dtype=torch.double), TOLD["probability_flow"]["state"]["point"]
    return law.diffuse(vp.alpha(t), vp.sigma(t)).log_prob(torch.tensor([point], dtype=torch.double)).item()


def mean_given_what_was_seen():
    state = TOLD["controllable_generation"]["state"]
    return law_of("controllable_generation").condition([[0.0, 1.0]], [state["y"]], state["noise"]).mean[0].item()


def grey_of_one_code():
    network, card = lab.pretrained("digits")
    process = sde.VPSDE(**card["sde"]["arguments"])
    model = sde.ScoreModel(network, process, data_std=card["data_std"])
    code = 1.4 * torch.arange(1.0, 65).sin().reshape(1, 1, 8, 8)
    return probability_flow.sample(process, model, code, n_steps=16).mean().item()


class Shown(NamedTuple):
    """A reading of a figure, what the figure is set to and how many steps it takes before, and its truth by Python."""

    label: str
    state: dict
    steps: int
    truth: Callable[[], float]
    fault: tuple[str, str, str]  # of the engine, which must be seen in it: a file, what is right in it, what is wrong


SHOWN = {
    "home": Shown("share at mode 1", {}, 60, lambda: 0.5, ("mixture.js", "Math.log(weights[k] / total) - 0.5", "-0.5")),
    "score_matching": Shown(
        "KL divergence from grey, by 10 000 draws",
        {},
        0,
        kl_from_equal_weights,
        ("mixture.js", "r[k] = constants[k] - 0.5 * squared", "r[k] = constants[k] - squared"),
    ),
    "monte_carlo": Shown(
        "the average, all draws",
        {},
        200,
        lambda: law_of("monte_carlo").mean.item(),
        ("mixture.js", "k < K - 1 && u >= cumulative[k]", "k < K - 1 && u < cumulative[k]"),
    ),
    "sliced": Shown(
        "trace of the Jacobian, by random directions",
        {},
        1000,
        trace_at_the_point,
        ("mixture.js", "out[i + j] -= (r[k] * v[i + j])", "out[i + j] += (r[k] * v[i + j])"),
    ),
    "langevin": Shown(
        "variance on N(0, 1)",
        {},
        60,
        lambda: 2 / (2 - 0.1),
        (
            "samplers.js",
            "s = score(x, new Float64Array(x.length)), noise = Math.sqrt(2 * step)",
            "s = score(x, new Float64Array(x.length)), noise = Math.sqrt(4 * step)",
        ),
    ),
    "noise_scales": Shown(
        "share of the crowd at mode 2",
        {},
        400,
        lambda: 0.8,
        ("mixture.js", "Math.log(weights[k] / total) - 0.5", "-0.5"),
    ),
    "sde": Shown(
        "share at mode 1, by what is likeliest",
        {"t": 1},
        100,
        lambda: 0.5,
        ("samplers.js", "rate * x[i] - g * g * s[i]", "rate * x[i] - 0.5 * g * g * s[i]"),
    ),
    "probability_flow": Shown(
        "log p of the point, by the flow",
        {},
        0,
        log_p_by_python,
        ("flow.js", "d + c * c * divergence[i]", "d + c * divergence[i]"),
    ),
    "controllable_generation": Shown(
        "mean of x₁",
        {"method": "exact"},
        250,
        mean_given_what_was_seen,
        ("mixture.js", "logs[k] -= 0.5 * residual[i]", "logs[k] += 0.5 * residual[i]"),
    ),
    "digits": Shown(
        "one fixed code, mean grey (torch)",
        {},
        16,
        grey_of_one_code,
        ("network.js", "0.25 * Math.log(sigma / alpha)", "0.25 * Math.log(alpha / sigma)"),
    ),
}


def told_by(opened, name):
    """What the reading says after its steps: measured, truth and error."""
    label, state, steps, *_ = SHOWN[name]
    opened.evaluate(
        """([state, steps]) => {
            const figure = document.querySelector(".scorebook-live").scorebook;
            figure.restore({ ...figure.first, ...state });
            figure.advance(steps);
        }""",
        [state, steps],
    )
    assert opened.locator(".scorebook-live").get_attribute("data-steps") == str(steps)
    (told,) = (reading for reading in readings(opened) if reading["label"] == label)
    return told


@pytest.mark.site
@on_each
def test_the_number_shown_is_within_its_error_of_the_truth_by_python(shown):
    told, truth = told_by(shown, shown.name), SHOWN[shown.name].truth()
    assert told["truth"] == pytest.approx(truth, rel=1e-3)
    assert abs(told["measured"] - truth) < 4 * told["error"] < max(1, abs(truth)) * 4
    at_first(shown)


@pytest.mark.site
@pytest.mark.parametrize("name", FIGURES)
def test_a_wrong_engine_is_seen(chromium, anew, tmp_path, name):
    file, right, wrong = SHOWN[name].fault
    sources = shutil.copytree(LIVE, tmp_path / "live")
    (tmp_path / "node_modules").symlink_to(ROOT / "node_modules", target_is_directory=True)
    text = (sources / "engine" / file).read_text(encoding="utf-8")
    assert text.count(right) == 1
    (sources / "engine" / file).write_text(text.replace(right, wrong), encoding="utf-8")
    bundle, _ = bundled(sources, tmp_path)
    opened = chromium.new_page(reduced_motion="reduce")
    opened.set_default_timeout(LONGEST_WAIT)
    opened.set_content(page(name, bundle=bundle))
    try:
        told, truth = told_by(opened, name), SHOWN[name].truth()
        assert not abs(told["measured"] - truth) <= 4 * told["error"]
    finally:
        opened.close()


@pytest.mark.site
@on_each
def test_nothing_went_wrong_meanwhile_and_nobody_was_asked(shown):
    assert shown.troubles == []
