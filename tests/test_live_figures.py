"""The figures of laws in time, of guidance and of digits show numbers that are true, in a browser, without a kernel."""

import pytest
import torch
from live import page

from scorebook import lab, sde

# Steps after which a figure in this state has to be right, and the readings that have a truth then.
RIGHT = {
    "noise_scales": ("noise_scales", {}, 400, 1),
    "sde, VP": ("sde", {"t": 1}, 100, 2),
    "sde, sub-VP": ("sde", {"t": 1, "process": "subvp"}, 100, 2),
    "sde, VE": ("sde", {"t": 1, "process": "ve", "n": 500}, 500, 2),
    "sde, forwards": ("sde", {"t": 0.001, "way": "forward"}, 100, 2),
    "probability_flow": ("probability_flow", {"point": [0.3, 0.2], "evaluations": 32}, 0, 1),
    "exact posterior": ("controllable_generation", {"method": "exact"}, 250, 3),
    "particles": ("controllable_generation", {"method": "particles"}, 250, 3),
    "digits": ("digits", {"known": [-2] * 64, "label": 3}, 16, 2),
}
# Answers that are wrong, and have to be seen to be.
WRONG = {
    "replacement": ("controllable_generation", {"method": "replacement", "noise": 0.6}, 250),
    "ten steps of VE": ("sde", {"t": 1, "process": "ve", "n": 10}, 10),
    "no noise to begin with": ("noise_scales", {"schedule": [1.0, 0.6, 0.3]}, 400),
}


@pytest.fixture(scope="module")
def opened(chromium):
    context = chromium.new_context(viewport={"width": 800, "height": 1000}, reduced_motion="reduce")
    pages = {}

    def show(name):
        if name not in pages:
            pages[name] = context.new_page()
            pages[name].set_default_timeout(300_000)
            pages[name].set_content(page(name))
            pages[name].locator(".scorebook-live").wait_for()
        return pages[name]

    yield show
    context.close()


def readings(shown, state, steps):
    return shown.evaluate(
        """([state, steps]) => {
            const root = document.querySelector(".scorebook-live"), figure = root.scorebook;
            figure.restore({ ...figure.first, ...state });
            figure.advance(steps);
            return [...root.querySelectorAll("output")].map(o => ({
                label: o.getAttribute("aria-label"), measured: parseFloat(o.dataset.measured),
                truth: parseFloat(o.dataset.truth), error: parseFloat(o.dataset.error) }));
        }""",
        [state, steps],
    )


@pytest.mark.site
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("case", RIGHT)
def test_what_a_figure_shows_is_true(opened, case, seed):
    name, state, steps, n_truths = RIGHT[case]
    found = readings(opened(name), state | {"seed": seed}, steps)
    told = [reading for reading in found if reading["truth"] == reading["truth"]]
    assert len(told) == n_truths
    assert [r for r in told if not abs(r["measured"] - r["truth"]) <= 4 * r["error"]] == []


@pytest.mark.site
def test_the_truths_are_the_package_s(opened):
    law = lab.GaussianMixture(
        [0.5, 0.3, 0.2], [[-1.2, -0.2], [1.3, 0.5], [0.5, -1.2]], torch.tensor([0.4, 0.35, 0.3]) ** 2
    )
    post = law.condition([[0.0, 1.0]], [0.7], 0.3)
    mean, spread, _ = readings(opened("controllable_generation"), {"y": 0.7, "noise": 0.3, "method": "exact"}, 2)
    assert mean["truth"] == pytest.approx(float(post.mean[0]), abs=1e-5)
    assert spread["truth"] == pytest.approx(float(post.covariance[0, 0].sqrt()), abs=1e-5)
    law = lab.GaussianMixture(
        [0.5, 0.3, 0.2], [[-1.3, -0.3], [1.2, 0.7], [0.7, -1.1]], torch.tensor([0.25, 0.3, 0.22]) ** 2
    )
    vp, x = sde.VPSDE(), torch.tensor([[0.3, 0.2]])
    exact = law.diffuse(vp.alpha(1e-3).float(), vp.sigma(1e-3).float()).log_prob(x)
    (log_p, *_) = readings(opened("probability_flow"), {"point": [0.3, 0.2]}, 0)
    assert log_p["truth"] == pytest.approx(float(exact), abs=1e-4)


@pytest.mark.site
@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_answer_is_told_from_the_truth(opened, case):
    name, state, steps = WRONG[case]
    found = readings(opened(name), state | {"seed": 1}, steps)
    assert [r for r in found if r["truth"] == r["truth"] and abs(r["measured"] - r["truth"]) > 4 * r["error"]] != []
