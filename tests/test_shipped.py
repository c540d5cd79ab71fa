"""The networks that ship with the package are whole, are what their cards say, and are as good as their cards say."""

import ast
import importlib
import itertools
import json
import math
import re
import shutil
from functools import partial

import pretrain
import pytest
import torch
from generated import NOTES
from sources import files

from scorebook import lab, sde

# The function stands in the way of the module of the same name.
MODULE = importlib.import_module("scorebook.lab.shipped")
NAMES = ("digits", "coloured_digits", "mnist", "digits_classifier")
SCORES = NAMES[:3]
LARGEST = 4_000_000

EACH = pytest.mark.parametrize("name", NAMES)


def disagreements(card, found):
    """The figures that lie more than four standard errors from the card.

    The spread of one draw is the card's, which rests on many: that of a few draws may be nought by accident.
    """
    wrong = {}
    for key, now in found.items():
        then = card["figures"][key]
        error = then["error"] * math.sqrt(1 + then["n"] / now["n"])
        if not abs(now["value"] - then["value"]) <= 4 * error:
            wrong[key] = (now["value"], then["value"], error)
    return wrong


# The files


def test_the_files_are_those_of_the_names_and_small():
    shipped = [path for path in files(MODULE._FOLDER) if path.name != NOTES]
    found = {path.name: path.stat().st_size for path in shipped}
    assert set(found) == {f"{name}{ending}" for name in NAMES for ending in (".json", ".safetensors")}
    assert sum(found.values()) <= LARGEST


# The cards


@EACH
def test_the_card_is_complete(name):
    _, card = lab.pretrained(name)
    keys = {"name", "network", "sde", "data", "training", "n_weights", "command", "versions", "licence", "sha256"}
    keys |= {"stored_as", "cost_of_rounding", "figures"} | ({"data_std"} if name in SCORES else set())
    if name == "mnist":  # the others were trained before cards told
        keys |= {"commit", "seconds", "compared"}
        assert re.fullmatch("[0-9a-f]{40}", card["commit"])
        assert 0 < card["seconds"] < 3 * 3600
    assert set(card) == keys
    assert card["name"] == name
    assert {"torch", "python", "numpy", "scikit-learn", "safetensors"} <= set(card["versions"])
    assert card["figures"]
    for found in card["figures"].values():
        assert set(found) == {"value", "error", "n", "of"}
        assert math.isfinite(found["value"])
        assert 0 < found["error"] < 0.1 * found["value"]
        assert found["n"] >= 10


def test_the_page_tells_of_two_minutes_what_the_card_has_of_them():
    compared = lab.pretrained("mnist")[1]["compared"]
    assert compared["seconds"] == 120
    loss = {which: found["held-out loss, label given"] for which, found in compared["found"].items()}
    assert all(each["n"] == 3 for each in loss.values())
    gap = loss["as shipped"]["value"] - loss["without attention"]["value"]
    assert gap > 2 * math.hypot(
        loss["as shipped"]["error"], loss["without attention"]["error"]
    )  # attention does not pay
    assert loss["plain"]["value"] > 2 * loss["as shipped"]["value"]
    steps = {which: found["steps"] for which, found in compared["found"].items()}
    assert steps["plain"] > 7 * steps["as shipped"]


@EACH
def test_the_card_states_the_recipe_that_its_command_follows(name):
    _, card = lab.pretrained(name)
    assert {key: card[key] for key in pretrain.start_card(name)} == pretrain.start_card(name)
    assert card["command"] == f"make weights NAMES={name}"


@EACH
def test_the_weights_are_stored_in_half_precision_at_little_cost(name):
    network, card = lab.pretrained(name)
    assert sum(weight.numel() for weight in network.parameters()) == card["n_weights"]
    for weight in network.parameters():
        assert torch.equal(weight, weight.half().float())
    loss = next(found for key, found in card["figures"].items() if key.startswith("held-out loss"))
    assert abs(card["cost_of_rounding"]["value"]) < loss["error"]


# Loading


@EACH
def test_a_network_comes_ready_for_use_and_for_further_training(name):
    network, _ = lab.pretrained(name)
    assert not any(module.training for module in network.modules())
    for weight in network.parameters():
        assert weight.requires_grad
        assert weight.dtype == torch.float32
        assert weight.device.type == "cpu"


def test_each_call_gives_a_network_and_a_card_of_its_own():
    (first, first_card), (second, second_card) = lab.pretrained("digits"), lab.pretrained("digits")
    with torch.no_grad():
        for weight in first.parameters():
            weight.zero_()
    first_card["figures"].clear()
    assert all(weight.any() for weight in second.parameters())
    assert second_card["figures"]


def test_loading_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    lab.pretrained("digits_classifier")
    assert torch.equal(before, torch.get_rng_state())


def test_defaults_of_dtype_and_device_do_not_reach_the_weights():
    expected, _ = lab.pretrained("digits_classifier")
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            found, _ = lab.pretrained("digits_classifier")
    finally:
        torch.set_default_dtype(torch.float32)
    for weight, same in zip(found.parameters(), expected.parameters(), strict=True):
        assert weight.dtype == same.dtype
        assert torch.equal(weight, same)


@pytest.mark.parametrize("name", ["letters", "", None, "../lab/weights/digits"])
def test_an_unknown_name_is_told_the_known_ones(name):
    known = "'digits', 'coloured_digits', 'mnist', 'digits_classifier'"
    with pytest.raises(ValueError, match=f"name must be one of {known}, got"):
        lab.pretrained(name)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the files, from which the package now reads."""
    copy = shutil.copytree(MODULE._FOLDER, tmp_path / "weights")
    monkeypatch.setattr(MODULE, "_FOLDER", copy)
    return copy


@pytest.mark.parametrize("ending", [".json", ".safetensors"])
def test_a_missing_file_is_named(folder, ending):
    (folder / f"digits{ending}").unlink()
    with pytest.raises(FileNotFoundError, match=rf"digits{ending} is missing from the package: install scorebook"):
        lab.pretrained("digits")


def flip_one_bit(data):
    return data[:-1] + bytes([data[-1] ^ 1])


DAMAGES = {
    "one bit": (".safetensors", flip_one_bit),
    "cut short": (".safetensors", lambda data: data[:-100]),
    "empty weights": (".safetensors", lambda data: b""),
    "a pointer in place of weights": (".safetensors", lambda data: b"version https://git-lfs.github.com/spec/v1\n"),
    "empty card": (".json", lambda data: b""),
    "card cut short": (".json", lambda data: data[:-100]),
    "card of another kind": (".json", lambda data: b"[]"),
    "card without checksum": (".json", lambda data: data.replace(b'"sha256"', b'"sha"')),
    "card in another encoding": (".json", lambda data: b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named(folder, damage):
    ending, spoil = DAMAGES[damage]
    path = folder / f"digits{ending}"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(RuntimeError, match=rf"digits{ending} is damaged \(.+\): install scorebook again"):
        lab.pretrained("digits")


def test_weights_that_do_not_fit_the_network_of_the_card_are_refused(folder):
    path = folder / "digits.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    card["network"]["arguments"]["width"] = 128
    path.write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(RuntimeError, match="damaged"):
        lab.pretrained("digits")


# The figures


@EACH
def test_the_figures_of_the_card_hold_when_measured_anew(name):
    network, card = lab.pretrained(name)
    found = pretrain.measure(network, card, n_passes=4 if name in SCORES else 16, n_groups=1, seed=20)
    assert set(found) == set(card["figures"])
    assert disagreements(card, found) == {}


def blocks(network):
    return [module for module in network.modules() if hasattr(module, "outer")]


def trunk(network):
    return getattr(network, "trunk", network)


def zero_a_layer(network):
    blocks(network)[1].outer.weight.zero_()


def forget_the_time(network):
    for block in blocks(network):
        block.time.weight.zero_()


def add_noise(network, share=0.1):
    generator = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        weight += share * weight.std(correction=0) * torch.randn(weight.shape, generator=generator)


def shrink_the_output(network, factor=0.8):
    trunk(network).last.weight *= factor


def swap_two_labels(network):
    rows = trunk(network).embed.from_label.weight
    rows[[3, 8]] = rows[[8, 3]]


def mistake_all_labels(network):
    rows = trunk(network).embed.from_label.weight
    rows[:10] = rows[:10].roll(1, dims=0)


# The classifier bears more: it has its class from the order of ten numbers, a score from each number as it is.
BREAKAGES = [(name, spoil) for name in NAMES for spoil in (zero_a_layer, forget_the_time)]
BREAKAGES += [(name, shrink_the_output) for name in SCORES]
BREAKAGES += [(name, spoil) for name in SCORES[:2] for spoil in (add_noise, swap_two_labels)]
# The large digits are measured on too few for little noise, or two labels, to show.
BREAKAGES += [("mnist", spoil) for spoil in (partial(add_noise, share=0.3), mistake_all_labels)]
BREAKAGES += [("digits_classifier", partial(add_noise, share=0.5))]
BREAKAGES += [("digits_classifier", partial(shrink_the_output, factor=0.5))]


@pytest.mark.parametrize(("name", "spoil"), BREAKAGES)
def test_a_broken_network_does_not_have_the_figures_of_its_card(name, spoil):
    network, card = lab.pretrained(name)
    with torch.no_grad():
        spoil(network)
    n_passes = 4 if name in SCORES else 16
    assert disagreements(card, pretrain.measure(network, card, n_passes=n_passes, n_groups=0, seed=20))


@pytest.mark.parametrize("name", SCORES)
def test_another_scale_of_the_data_than_the_card_states_does_not_have_its_figures(name):
    network, card = lab.pretrained(name)
    wrong = card | {"data_std": 1.5 * card["data_std"]}
    assert disagreements(card, pretrain.measure(network, wrong, n_passes=4, n_groups=0, seed=20))


@pytest.mark.parametrize("name", SCORES)
def test_a_network_makes_a_score_as_the_docstring_says(name):
    """At a low noise level the score leads back to the digit: measured without the code that made the card."""
    network, card = lab.pretrained(name)
    vp = sde.VPSDE(**card["sde"]["arguments"])
    model = sde.ScoreModel(network, vp, data_std=card["data_std"])
    images, labels = (x[:360] for x in getattr(lab, name)("test"))
    t = vp.time_of(0.3)
    x_t, _ = vp.perturb(images, t, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        left = [vp.denoise(lambda x, t, y=y: model(x, t, label=y), x_t, t) - images for y in (labels, None)]
        noise = x_t / vp.alpha(t) - images
    # A single Gaussian with the moments of the training digits is the best that a linear rule can do.
    training = getattr(lab, name)("train")[0].flatten(1).double()
    spread = torch.cov(training.T) + 1e-3 * torch.eye(training.shape[1])  # some pixels never change
    gaussian = lab.GaussianMixture(torch.ones(1), training.mean(0, keepdim=True), spread.unsqueeze(0))
    rule = vp.exact_score(gaussian)
    linear = vp.denoise(rule, x_t.flatten(1).double(), t) - images.flatten(1)
    errors = [gap.double().square().mean().sqrt().item() for gap in (*left, linear, noise)]
    assert errors[0] < errors[1] < errors[2] < errors[3]


@pytest.mark.parametrize("name", SCORES)
def test_a_network_has_not_learned_its_digits_by_heart(name):
    """The network that was trained on plain digits alone, for 6000 steps, failed each of the three bounds."""
    _, card = lab.pretrained(name)

    def value(what):
        return card["figures"][what]["value"]

    bits, code = (
        {split: value(f"{what} of {split} digits, label given") for split in ("training", "held-out")}
        for what in ("bits per dimension", "length of the code")
    )
    assert bits["held-out"] - bits["training"] < 0.25
    chance = math.prod(pretrain.event_shape(card)) ** 0.5
    assert code["held-out"] / code["training"] < 1.12
    assert code["held-out"] / chance < 1.08


# The tool


def test_distorted_digits_and_no_others_bear_the_labels_of_distorted_ones(monkeypatch):
    card, seen = pretrain.start_card("digits"), {}
    monkeypatch.setattr(pretrain.probability_flow, "dequantize", lambda x, width, generator: x)
    monkeypatch.setattr(pretrain.sde, "score_matching_loss", lambda model, sde, x, **given: seen.update(x=x, **given))
    model = pretrain.wrap(pretrain.build(card, torch.Generator()), card)
    images, labels = lab.digits("train")
    pretrain.score_loss(card)(model, images, labels, torch.Generator().manual_seed(0))
    distorted = (seen["x"] != images).flatten(1).any(1)
    assert torch.equal(distorted, seen["labels"] >= 10)
    assert torch.equal(seen["labels"][distorted], labels[distorted] + 10)
    kept = seen["labels"] == labels
    assert torch.equal(seen["labels"] == -1, ~(distorted | kept))
    n, share, p_drop = len(images), card["training"]["distortion"]["share"], card["training"]["p_drop"]
    for found, expected in ((distorted, share), (seen["labels"] == -1, (1 - share) * p_drop)):
        assert abs(found.double().mean() - expected) < 4 * (expected * (1 - expected) / n) ** 0.5


NO_DISTORTION = {"share": 1.0, "degrees": 0.0, "pixels": 0.0, "log_scale": 0.0}


def spread_of_ink(images):
    """Centre and covariance of the ink of each image, in pixels; the first coordinate runs to the right."""
    ink = (images[:, 0] + 1).double()
    ink = ink / ink.sum((1, 2), keepdim=True)
    place = torch.arange(images.shape[-1], dtype=torch.float64)
    x, y = place.expand(ink.shape[1:]), place[:, None].expand(ink.shape[1:])
    centre = torch.stack([(ink * x).sum((1, 2)), (ink * y).sum((1, 2))], dim=1)
    offsets = [place - centre[:, :1, None], place[:, None] - centre[:, 1:, None]]
    return centre, torch.stack([(ink * a * b).sum((1, 2)) for a in offsets for b in offsets], dim=1).reshape(-1, 2, 2)


def blobs(n, size=32, wide=3.0, high=2.0):
    place = torch.arange(size) - (size - 1) / 2
    blob = torch.exp(-0.5 * ((place / wide) ** 2 + (place[:, None] / high) ** 2))
    return (2 * blob - 1).expand(n, 1, size, size)


def test_no_distortion_leaves_digits_as_they_are():
    images = lab.digits("test")[0]
    found, chosen = pretrain.distort(images, **NO_DISTORTION, generator=torch.Generator().manual_seed(0))
    assert bool(chosen.all())
    torch.testing.assert_close(found, images, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["pixels", "degrees", "log_scale"])
def test_a_distortion_has_the_size_that_it_is_given(kind):
    """Standard deviations of a shift in pixels, of a turn in degrees, of the logarithm of a width."""
    n, size = 1000, {"pixels": 1.5, "degrees": 8.0, "log_scale": 0.1}[kind]
    generator = torch.Generator().manual_seed(0)
    found, _ = pretrain.distort(blobs(n), **NO_DISTORTION | {kind: size}, generator=generator)
    centre, covariance = spread_of_ink(found)
    if kind == "pixels":
        measured = centre - 15.5
    elif kind == "degrees":
        lean = 0.5 * torch.atan2(2 * covariance[:, 0, 1], covariance[:, 0, 0] - covariance[:, 1, 1])
        measured = torch.rad2deg(lean)[:, None]
    else:
        measured = 0.5 * torch.diagonal(covariance, dim1=1, dim2=2).log() - torch.tensor([3.0, 2.0]).log()
    for column in measured.T:
        assert abs(column.std() / size - 1) < 4 / (2 * n) ** 0.5 + 0.03  # a picture of few pixels cuts the tails
        assert abs(column.mean()) < 5 * size / n**0.5


def test_units_of_each_block_rest_in_either_kind_of_network():
    for name, shape, n_blocks in (("digits", (1, 8, 8), 3), ("mnist", (1, 28, 28), 6)):
        network = pretrain.build(pretrain.start_card(name), torch.Generator().manual_seed(0)).train()
        blocks, seen = [module for module in network.modules() if hasattr(module, "outer")], []
        with torch.random.fork_rng(devices=[]), pretrain.dropout(network, 0.25):
            for block in blocks:
                block.outer.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0] == 0))
            network(torch.ones(4, *shape), 0.5)
        assert len(seen) == n_blocks
        for zeros in seen:
            assert abs(zeros.double().mean() - 0.25) < 4 * (0.25 * 0.75 / zeros.numel()) ** 0.5


def test_units_rest_in_training_only_and_none_afterwards():
    network = pretrain.build(pretrain.start_card("digits"), torch.Generator().manual_seed(0)).train()
    with torch.no_grad():
        network.trunk.last.weight.normal_(generator=torch.Generator().manual_seed(1))
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    seen = []
    with torch.random.fork_rng(devices=[]), pretrain.dropout(network, 0.25):
        torch.manual_seed(0)
        handle = network.trunk.blocks[0].outer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        first, second = network(x, 0.5), network(x, 0.5)
        network.eval()
        resting = network(x, 0.5)
        handle.remove()
    assert not torch.equal(first, second)
    share = (seen[0] == 0).double().mean()
    assert abs(share - 0.25) < 4 * (0.25 * 0.75 / seen[0].numel()) ** 0.5
    assert torch.equal(resting, network(x, 0.5))
    assert not (seen[2] == 0).any()
    assert torch.equal(network.train()(x, 0.5), resting)


def test_a_recipe_that_ends_early_ends_with_the_average_so_far_and_goes_on_from_a_state(tmp_path):
    card = pretrain.start_card("digits_classifier")
    card["training"] = card["training"] | {"n_steps": 10, "schedule": "constant"}
    ten, _ = pretrain.train(card, progress=False)
    card["training"] = card["training"] | {"n_steps": 20, "last_step": 10}
    stopped, _ = pretrain.train(card, progress=False)
    assert all(map(torch.equal, stopped.parameters(), ten.parameters()))
    whole = card | {"training": card["training"] | {"last_step": 20}}
    expected, spent = pretrain.train(whole, progress=False, checkpoint=tmp_path / "state.pt")
    again, seconds = pretrain.train(whole, progress=False, checkpoint=tmp_path / "state.pt")
    assert seconds > 0.9 * spent
    assert all(map(torch.equal, again.parameters(), expected.parameters()))
    assert not all(map(torch.equal, again.parameters(), ten.parameters()))


def test_a_training_whose_state_was_kept_is_not_done_again(tmp_path):
    card = pretrain.start_card("digits_classifier")
    card["training"] = card["training"] | {"n_steps": 20}
    first, seconds = pretrain.train(card, progress=False, checkpoint=tmp_path / "state.pt")
    kept, same_seconds = pretrain.train(card, progress=False, checkpoint=tmp_path / "state.pt")
    assert 0 < 0.9 * seconds < same_seconds < seconds + 1
    assert all(map(torch.equal, kept.parameters(), first.parameters()))


def test_what_a_network_is_held_against_is_trained_as_long_from_each_seed(monkeypatch, tmp_path):
    ticks = itertools.count()
    monkeypatch.setattr(pretrain.time, "process_time", lambda: next(ticks))
    monkeypatch.setattr(pretrain, "COMPARED", tmp_path / "compared")
    monkeypatch.setattr(pretrain, "N_SEEDS", 2)
    monkeypatch.setattr(pretrain, "N_LOOKED_AT", {"mnist": 5})
    _, shipped = lab.pretrained("mnist")
    pretrain.main(["mnist", "--compare", "4", "--into", str(tmp_path)])
    card = json.loads((tmp_path / "mnist.json").read_text(encoding="utf-8"))
    compared = card.pop("compared")
    assert card == {key: value for key, value in shipped.items() if key != "compared"}
    assert compared["command"] == "make weights NAMES=mnist COMPARE=4"
    assert set(compared["found"]) == {"as shipped", "without attention", "plain"}
    found = compared["found"]
    # The clock is read when training begins and before each step.
    assert {of["steps"] for of in found.values()} == {3}
    attention = sum(p.numel() for p in lab.pretrained("mnist")[0].attention.parameters())
    assert found["as shipped"]["n_weights"] == shipped["n_weights"]
    assert found["without attention"]["n_weights"] == shipped["n_weights"] - attention
    losses = {which: of["held-out loss, label given"] for which, of in found.items()}
    assert {loss["n"] for loss in losses.values()} == {2}
    assert len({loss["value"] for loss in losses.values()}) == 3
    assert all(loss["error"] > 0 for loss in losses.values())
    monkeypatch.setattr(pretrain, "train_for", lambda *_: pytest.fail("it was trained before"))
    pretrain.compare("mnist", 4.0, tmp_path)
    with pytest.raises(SystemExit):
        pretrain.main(["digits", "--compare", "4"])


def test_the_share_nearer_to_training_digits_tells_copies_from_strangers():
    card = pretrain.start_card("digits")
    training, held_out = lab.digits("train")[0], lab.digits("test")[0]
    rows = torch.randperm(len(training), generator=torch.Generator().manual_seed(0))
    assert pretrain.share_nearer(held_out, held_out, card) == 0
    copies = [pretrain.share_nearer(training[part], held_out, card) for part in rows[:1080].split(360)]
    assert min(copies) > 1 / 3  # each is a copy for one of three choices, a stranger for two
    strangers = training[rows[1080:]]
    assert abs(pretrain.share_nearer(strangers, held_out, card) - 0.5) < 4 * 0.5 / len(strangers) ** 0.5


def test_a_figure_is_a_mean_with_its_standard_error():
    found = pretrain.figure([1.0, 3.0, 5.0, 7.0], "of what")
    assert found == {"value": 4.0, "error": pytest.approx((20 / 3 / 4) ** 0.5), "n": 4, "of": "of what"}


def test_each_distance_has_the_yardstick_that_was_drawn_alike(monkeypatch):
    network, card = lab.pretrained("digits")
    monkeypatch.setattr(pretrain, "draw", lambda network, card, labels, generator: torch.zeros(len(labels), 1, 8, 8))
    monkeypatch.setattr(pretrain, "distance", lambda images, held_out: 8.0)
    monkeypatch.setattr(pretrain, "real_distance", lambda card, held_out, stratified: 2.0 if stratified else 4.0)
    figures = pretrain.measure_samples(network, card, n_groups=2, seed=0)
    ratios = {how: figures[f"distance to held-out digits, {how}"]["value"] for how in ("label given", "no label")}
    assert ratios == {"label given": 4.0, "no label": 2.0}


def test_how_near_samples_are_to_what_was_learned_is_told_in_units_of_held_out_digits(monkeypatch):
    network, card = lab.pretrained("digits")
    monkeypatch.setattr(pretrain, "draw", lambda network, card, labels, generator: torch.zeros(len(labels), 1, 8, 8))
    monkeypatch.setattr(pretrain, "to_nearest", lambda images, card: 3.0 if images.any() else 1.5)
    monkeypatch.setattr(pretrain, "real_distance", lambda *_, **__: 1.0)
    figures = pretrain.measure_samples(network, card, n_groups=2, seed=0)
    nearness = {figures[f"distance to nearest training digit, {how}"]["value"] for how in ("label given", "no label")}
    assert nearness == {0.5}


@pytest.mark.parametrize("stratified", [True, False])
def test_the_yardstick_draws_as_many_of_each_class_as_it_says(monkeypatch, stratified):
    _, card = lab.pretrained("digits")
    images, labels = lab.digits("train")
    held_out, truth = lab.digits("test")
    known = {tuple(image.flatten().tolist()): label for image, label in zip(images, labels.tolist(), strict=True)}
    counted = []

    def distance(drawn, held_out):
        classes = [known[tuple(image.flatten().tolist())] for image in drawn]
        counted.append(torch.tensor(classes).bincount(minlength=10))
        return float(len(counted))

    monkeypatch.setattr(pretrain.probability_flow, "dequantize", lambda x, width, generator: x)
    monkeypatch.setattr(pretrain, "distance", distance)
    assert pretrain.real_distance(card, held_out, stratified=stratified, n_draws=4) == 2.5
    assert {int(counts.sum()) for counts in counted} == {len(held_out)}
    assert all(torch.equal(counts, truth.bincount(minlength=10)) for counts in counted) is stratified


def test_wherever_digits_are_spread_over_their_bins_a_bin_is_one_grey_level(root):
    levels = lab.digits("train")[0].unique()
    width = levels.diff().unique().item()
    files = [*root.glob("examples/*.py"), *root.glob("tools/*.py"), *root.glob("benchmarks/*.py")]
    texts = {file: file.read_text(encoding="utf-8") for file in [*files, *root.glob("book/*.ipynb")]}
    found = {file.name: re.findall(r"^\s*\"?BIN = ([\d.]+)", text, re.M) for file, text in texts.items()}
    found = {name: [float(number) for number in numbers] for name, numbers in found.items() if numbers}
    assert {"train_digits.py", "pretrain.py", "digits_peers.py", "tour.ipynb", "probability_flow.ipynb"} <= set(found)
    assert {number for numbers in found.values() for number in numbers} == {width}


def widths_of_bins(text):
    """What the calls of a program that need the width of a bin are given, by the name of what is called."""
    found = {"dequantize": set(), "bits_per_dim": set()}
    for node in ast.walk(ast.parse(text)):
        name = getattr(node.func, "attr", None) if isinstance(node, ast.Call) else None
        if name in found:
            found[name].add(ast.unparse(node.args[-1]))
    return found


def test_bits_are_told_of_the_bins_over_which_grey_levels_were_spread(root):
    files = [path for folder in ("examples", "tools", "benchmarks") for path in (root / folder).glob("*.py")]
    found = {path.name: widths_of_bins(path.read_text(encoding="utf-8")) for path in files}
    found = {name: widths for name, widths in found.items() if widths["bits_per_dim"]}
    assert {"train_digits.py", "train_mnist.py", "pretrain.py", "digits.py", "tutorial.py"} <= set(found)
    for name, widths in found.items():
        assert widths["bits_per_dim"] <= widths["dequantize"], name
        assert not any(isinstance(ast.parse(width).body[0].value, ast.BinOp) for width in widths["dequantize"]), name


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_each_kind_of_digits_is_spread_over_bins_of_one_grey_level(name):
    levels = pretrain.DATA[name]("train")[0].unique()
    assert levels.diff().min().item() == pytest.approx(pretrain.start_card(name)["data"]["bin_width"], rel=1e-4)


def test_training_repeats_itself_bit_for_bit():
    card = pretrain.start_card("digits_classifier")
    card["training"] = card["training"] | {"n_steps": 20}
    first, second = (pretrain.train(card, progress=False)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    card["training"]["seed"] += 1
    other = pretrain.train(card, progress=False)[0].state_dict()
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_the_tool_refuses_a_name_that_it_does_not_know(capsys):
    with pytest.raises(SystemExit):
        pretrain.main(["letters"])
    assert "unknown: letters; there are digits, coloured_digits, mnist, digits_classifier" in capsys.readouterr().err


def test_the_tool_and_the_package_know_the_same_names():
    assert pretrain.NAMES == MODULE._NAMES == NAMES
