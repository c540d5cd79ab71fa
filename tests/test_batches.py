"""Data in any form train alike, are resumed to the same bits, and are refused where they cannot be."""

import random

import numpy as np
import pytest
import torch
from small_run import assert_same_run, assert_same_weights, denoising, network, seeded, train
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from scorebook import lab, sde
from scorebook.lab.batches import GlobalDraws, batch_size_of, rows_of

X, LABELS = torch.randn(37, 2, generator=seeded(7)), torch.arange(37) % 3
VP = sde.VPSDE()


class Pairs(Dataset):
    """Items as most data sets have them: a point and a label."""

    def __init__(self, x=X, labels=LABELS, change=lambda x: x):
        self.x, self.labels, self.change = x, labels, change

    def __len__(self):
        return len(self.x)

    def __getitem__(self, row):
        return self.change(self.x[row]), int(self.labels[row])


class Named(Pairs):
    def __getitem__(self, row):
        return {"x": self.x[row].numpy(), "label": int(self.labels[row])}


class Fetched(Pairs):
    """One that reads many rows at once, and would tell if it did not."""

    def __getitem__(self, row):
        raise AssertionError("read one by one")

    def __getitems__(self, rows):
        return [super(Fetched, self).__getitem__(row) for row in rows]


class Frame:
    """What pandas and polars have in common."""

    def __init__(self, values):
        self.values = values

    def to_numpy(self):
        return self.values


FORMS = {
    "tuple": (X, LABELS),
    "list": [X, LABELS],
    "dictionary": {"x": X, "label": LABELS},
    "double": (X.double(), LABELS.int()),
    "half a batch in arrays": (X.numpy(), LABELS),
    "arrays": (X.double().numpy(), LABELS.numpy()),
    "big-endian": (X.numpy().astype(">f8"), LABELS.numpy()),
    "strided": (X.flip(0).numpy()[::-1], LABELS),
    "frames": (Frame(X.numpy()), Frame(LABELS.numpy())),
    "items": Pairs(),
    "named items": Named(),
    "items at once": Fetched(),
    "no Dataset by name": type("Duck", (), {"__len__": Pairs.__len__, "__getitem__": Pairs.__getitem__})(),
    "subset": Subset(Pairs(torch.cat([X, X]), torch.cat([LABELS, LABELS])), range(37)),
    "tensors": TensorDataset(X, LABELS),
    "loader": DataLoader(Pairs(), batch_size=8),
    "shuffled loader": DataLoader(Pairs(), batch_size=8, shuffle=True, drop_last=True),
    "loader of tensors": DataLoader(TensorDataset(X, LABELS), batch_size=8),
    "collated": DataLoader(Pairs(), batch_size=8, collate_fn=lambda items: [2 * p / 2 for p in default_collate(items)]),
}
duck = FORMS["no Dataset by name"]
duck.x, duck.labels, duck.change = X, LABELS, lambda x: x
READ_ONLY = X.numpy().copy()
READ_ONLY.flags.writeable = False
FORMS["read-only"] = (READ_ONLY, LABELS)


def denoising_of_any(model, x, label, *, generator):
    return denoising(model, x, label.long(), generator=generator)


@pytest.fixture(scope="module")
def plain():
    return train(12, data=(X, LABELS), loss=denoising_of_any)


@pytest.mark.parametrize("form", FORMS)
def test_data_in_any_form_train_to_the_same_bits(form, plain):
    assert_same_run(train(12, data=FORMS[form], loss=denoising_of_any), plain)


@pytest.mark.parametrize("form", FORMS)
def test_a_run_on_data_in_any_form_is_resumed_to_the_same_bits(form, plain, tmp_path):
    path = tmp_path / "run.pt"
    settings = {"data": FORMS[form], "loss": denoising_of_any, "checkpoint": path, "changed": ()}
    train(7, **settings)
    assert_same_run(train(12, **settings), plain)
    in_items = type(rows_of(FORMS[form], [X.dtype])).__name__ == "_Items"  # of which some are looked at, and not each
    other = X + (0.1 if in_items else torch.arange(37)[:, None].eq(18))
    with pytest.raises(ValueError, match="was written for another data"):
        train(14, **settings | {"data": Pairs(other) if in_items else (other, LABELS)})


def turned(x):
    """At random, by each of the generators that data sets draw from."""
    return x * (1 + torch.rand(())) * (1 + np.random.rand()) * (1 + random.random())  # noqa: NPY002


def global_states():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002


def test_items_that_are_turned_at_random_are_resumed_to_the_same_bits(tmp_path):
    data, path, before = Pairs(change=turned), tmp_path / "run.pt", global_states()
    whole = train(12, data=data, loss=denoising_of_any)
    assert global_states() == before
    torch.rand(3), random.random()
    train(7, data=data, loss=denoising_of_any, checkpoint=path, changed=())
    assert_same_run(train(12, data=data, loss=denoising_of_any, checkpoint=path, changed=()), whole)
    other = train(12, data=Pairs(), loss=denoising_of_any)
    assert not torch.equal(other[1].loss, whole[1].loss)
    with pytest.raises(ValueError, match="was written for another data"):
        train(14, data=Pairs(), loss=denoising_of_any, checkpoint=path, changed=())
    longer = train(14, data=Pairs(), loss=denoising_of_any, checkpoint=path, changed="data")
    assert torch.equal(longer[1].loss[:12], whole[1].loss)


def test_items_that_never_come_out_alike_are_no_reason_to_refuse(tmp_path):
    own = np.random.default_rng()
    data, path = Pairs(change=lambda x: x + own.random()), tmp_path / "run.pt"
    train(3, data=data, loss=denoising_of_any, checkpoint=path, changed=())
    train(6, data=data, loss=denoising_of_any, checkpoint=path, changed=())
    fewer = Pairs(X[:36], LABELS[:36], change=data.change)
    with pytest.raises(ValueError, match="rows=37"):
        train(8, data=fewer, loss=denoising_of_any, checkpoint=path, changed=())


def test_the_loader_gives_the_batch_size_unless_another_is_asked_for():
    loader = DataLoader(Pairs(), batch_size=5)
    assert [batch_size_of(data, size) for data, size in ((loader, None), (loader, 7), (X, None), (X, 7))] == [
        5,
        7,
        128,
        7,
    ]
    sizes = []

    def loss(model, x, label, *, generator):
        sizes.append(len(x))
        return denoising(model, x, label, generator=generator)

    train(3, data=loader, loss=loss, batch_size=None)
    assert sizes == [5, 5, 5]


class Conditional(nn.Module):
    """A network that takes what it is conditioned on in three forms, and keeps what it saw."""

    def __init__(self):
        super().__init__()
        self.layers, self.seen = nn.Linear(3, 2), []

    def forward(self, x, t, vector, pair, more, label=None):
        self.seen.append((vector, pair, more, label))
        return self.layers(torch.cat([x, t[:, None]], 1)) + vector[:, :2] + pair[0].sum((1, 2, 3))[:, None] + more["a"]


def conditions(n=37, **kw):
    g = seeded(5)
    vector, image = torch.randn(n, 4, generator=g, **kw), torch.randn(n, 1, 2, 3, generator=g, **kw)
    return {"vector": vector, "pair": (image, torch.arange(n)), "more": {"a": torch.ones(n, 1, dtype=torch.float64)}}


def test_conditions_of_any_shape_reach_the_network_row_by_row():
    given = conditions(dtype=torch.float64)
    model = sde.ScoreModel(Conditional(), VP)
    lab.fit(model, sde.denoising_loss, {"x": X, **given}, n_steps=3, batch_size=10, generator=seeded())
    for vector, (image, numbers), more, label in model.network.seen:
        assert {part.dtype for part in (vector, image, more["a"])} == {torch.float32}
        assert torch.equal(vector, given["vector"][numbers].float())
        assert torch.equal(image, given["pair"][0][numbers].float())
        assert label is None
    assert not torch.equal(model.network.seen[0][1][1], torch.arange(10))


def test_labels_and_conditions_of_a_row_are_dropped_together():
    model = sde.ScoreModel(Conditional(), VP)
    given, ones = conditions(400), torch.ones(400, 4)
    x, labels = torch.randn(400, 2, generator=seeded()), 1 + torch.arange(400) % 2
    sde.score_matching_loss(model, VP, x, labels=labels, p_drop=0.25, generator=seeded(1), **given | {"vector": ones})
    ((vector, (image, _), more, label),) = model.network.seen
    dropped = label == -1
    assert 60 < dropped.sum() < 140  # 100, give or take four standard errors of 8.7
    assert torch.equal(vector, torch.where(dropped[:, None], 0.0, ones))
    assert torch.equal(image != 0, ~dropped.reshape(-1, 1, 1, 1).expand_as(image))
    assert torch.equal(more["a"][:, 0] == 0, dropped)
    sde.denoising_loss(model, x, **given)
    assert torch.equal(model.network.seen[1][0], given["vector"])


@pytest.mark.parametrize("bad", [torch.ones(36, 4), torch.tensor(1.0), [[1.0]], "a word"])
def test_a_condition_with_other_rows_is_refused_by_its_name(bad):
    with pytest.raises(ValueError, match="vector must be a tensor of shape"):
        sde.denoising_loss(sde.ScoreModel(Conditional(), VP), X, **conditions() | {"vector": bad})


def test_the_common_loss_is_the_loss_in_the_model_s_own_sde_and_weight():
    model = sde.ScoreModel(network(), VP, data_std=0.5)
    nn.init.normal_(model.network.trunk.last.weight, generator=seeded())
    long = sde.score_matching_loss(model, VP, X, labels=LABELS, p_drop=0.3, weighting=model.weight, generator=seeded(1))
    for same in (model, torch.compile(model, backend="eager")):
        assert torch.equal(sde.denoising_loss(same, X, LABELS, p_drop=0.3, generator=seeded(1)), long)
    history = lab.fit(model, sde.denoising_loss, (X, LABELS), n_steps=300, lr=1e-2, generator=seeded())
    assert history.smoothed()[-1] < history.smoothed()[50]
    with pytest.raises(ValueError, match="model must be a ScoreModel"):
        sde.denoising_loss(network(), X)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(X)


class Words(Pairs):
    def __getitem__(self, row):
        return X[row], "a word"


NAN = torch.where(torch.arange(37)[:, None] == 11, torch.nan, X)
REFUSED = {
    "a stream": (Stream(), "Stream, a stream"),
    "a loader of a stream": (DataLoader(Stream()), "Stream, a stream"),
    "weighted": (
        DataLoader(Pairs(), sampler=WeightedRandomSampler([0.5] * 37, 37)),
        "got one with a WeightedRandomSampler: for some rows give",
    ),
    "with replacement": (DataLoader(Pairs(), sampler=RandomSampler(Pairs(), replacement=True)), "with a RandomSampler"),
    "in batches of its own": (DataLoader(Pairs(), batch_sampler=[[0, 1]]), "got one with a list"),
    "bytes": (torch.zeros(37, 2, dtype=torch.uint8), r"got torch.uint8: scale them first, as in data.float\(\) / 255"),
    "integers": (torch.zeros(37, 2, dtype=torch.int64), "got torch.int64$"),
    "bytes in items": (Pairs(torch.zeros(37, 2, dtype=torch.uint8)), "scale them first"),
    "NaN": (NAN, "data must be finite, got nan"),
    "NaN in an item": (Pairs(NAN), r"data must be finite, got NaN or infinity in data\[0\] of item 11"),
    "no rows": (X[:0], "at least one row"),
    "no items": (Pairs(X[:0]), "at least one row, got an empty Pairs"),
    "nothing": ((), "at least one row"),
    "other rows": ((X, LABELS[:36]), r"as many rows in each tensor, got \[37, 36\]"),
    "other rows inside": ({"x": X, "label": {"a": LABELS[:36]}}, "as many rows in each tensor"),
    "a number": (3.0, "got float"),
    "a number inside": ((X, 3), "hold tensors, got int"),
    "words": (np.array(["a", "b"]), "data must be numbers, got an array of <U1"),
    "words inside": (Words(), "got .*(tuple|str)"),
    "the model's name": ({"model": X}, "data must name arguments of the loss"),
    "the generator's name": ({"x": X, "generator": X}, "got 'generator'"),
    "no names": ({0: X}, "got 0"),
    "a generator": ((x for x in X), "got generator"),
    "complex": (torch.complex(X, X), "data must be points in floating-point"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_data_is_refused(case):
    data, words = REFUSED[case]
    model = network()
    with pytest.raises(ValueError, match=words):
        train(12, model=model, data=data, loss=denoising_of_any)
    if "item 11" not in words:  # which is met in the second batch
        assert_same_weights(model, network())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([*X], r"they give 37 tensors in order and by name none .* torch.stack\(points\)"),
        ({"data": X}, "in order and by name data .*missing"),
        ((X, LABELS, LABELS), "they give 3 tensors in order"),
    ],
)
def test_data_that_are_not_what_the_loss_takes_are_refused(data, words):
    with pytest.raises(ValueError, match=words):
        lab.fit(sde.ScoreModel(network(), VP), sde.denoising_loss, data, n_steps=1)


def test_a_type_error_inside_of_the_loss_stays_what_it_is():
    with pytest.raises(TypeError, match="unexpected keyword argument 'context'"):
        lab.fit(sde.ScoreModel(network(), VP), sde.denoising_loss, {"x": X, "context": X}, n_steps=1)


def test_the_global_generators_are_lent_and_put_back():
    before, draws, own = global_states(), GlobalDraws(), seeded()
    try:
        drawn = []
        for number in (5, 5, 2**56 - 1):
            draws.seed(number)
            drawn.append((torch.rand(()).item(), np.random.rand(), random.random()))  # noqa: NPY002
    finally:
        draws.put_back()
    assert global_states() == before
    assert drawn[0] == drawn[1]
    assert all(a != b for a, b in zip(drawn[1], drawn[2], strict=True))
    left_out = GlobalDraws(own=torch.default_generator)
    left_out.seed(5)
    assert torch.get_rng_state().tolist() == before[0]
    left_out.put_back()
    assert torch.equal(torch.rand(2, generator=own), torch.rand(2, generator=seeded()))


def square(model, x):
    return (model(x) ** 2).mean()


def test_the_held_out_loss_is_the_mean_over_all_rows():
    model = nn.Linear(2, 1).double()
    x = X.double()
    mean, error = lab.held_out_loss(model, square, x, batch_size=3)
    assert mean == pytest.approx(square(model, x).item(), rel=1e-12)
    losses = torch.stack([square(model, part) for part in x.split(3)])
    weights = torch.tensor([*[3] * 12, 1]) / 37
    assert error == pytest.approx(((weights * (losses - mean)) ** 2).sum().mul(13 / 12).sqrt().item(), rel=1e-6)
    assert lab.held_out_loss(model, square, DataLoader(TensorDataset(x), batch_size=3)) == (mean, error)
    few = lab.held_out_loss(model, square, x[:3])
    assert few == pytest.approx((square(model, x[:3]).item(), model(x[:3]).square().std().item() / 3**0.5), rel=1e-9)
    with pytest.raises(ValueError, match="at least two rows"):
        lab.held_out_loss(model, square, x[:1])


def test_the_standard_error_of_the_held_out_loss_is_that_of_its_mean():
    model = nn.Linear(2, 1).double()
    every = [
        lab.held_out_loss(model, square, torch.randn(320, 2, generator=seeded(s), dtype=torch.float64), batch_size=16)
        for s in range(200)
    ]
    means, errors = torch.tensor(every).T
    ratio = (means.var() / errors.square().mean()).item()
    assert (
        abs(ratio - 1) < 4 * (2 / 200) ** 0.5 * 1.2
    )  # of a variance from 200 draws, and of errors with 19 degrees each


def of_points(model, x, label):
    return square(model, x)


def test_the_held_out_loss_leaves_no_trace():
    model = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
    model[2].eval()
    kept, before = {k: v.clone() for k, v in model.state_dict().items()}, global_states()
    once, again = (
        lab.held_out_loss(model, of_points, Pairs(change=turned), batch_size=9, generator=seeded()) for _ in range(2)
    )
    assert once == again
    assert [module.training for module in model.modules()] == [True, True, True, False, True]
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert global_states() == before


def test_the_same_seed_gives_the_same_held_out_loss():
    model = sde.ScoreModel(network(), VP)
    a, b, c = (lab.held_out_loss(model, sde.denoising_loss, (X, LABELS), generator=seeded(s)) for s in (1, 1, 2))
    assert a[0] == b[0]
    assert a[0] != c[0]
    with pytest.raises(ValueError, match="model must be"):
        lab.held_out_loss(square, square, X)
    with pytest.raises(ValueError, match="scalar"):
        lab.held_out_loss(model, lambda model, x, label: x, (X, LABELS))
