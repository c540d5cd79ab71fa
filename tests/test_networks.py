"""Networks: smooth, row by row, alive in every weight, and reproducible from a generator alone."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from scorebook.lab import fit
from scorebook.lab.networks import MLP, NoisyClassifier, TimeMLP, UNet, initialise

BUILD = {
    "mlp": lambda **kw: MLP((2, 3), width=16, **kw),
    "energy": lambda **kw: MLP(6, width=16, out_dim=1, **kw),
    "time_mlp": lambda **kw: TimeMLP((2, 3), width=16, **kw),
    "time_mlp_labels": lambda **kw: TimeMLP(6, width=16, n_classes=3, **kw),
    "unet": lambda **kw: UNet(2, width=8, **kw),
    "unet_labels": lambda **kw: UNet(1, width=12, n_classes=3, **kw),
    "classifier": lambda **kw: NoisyClassifier((2, 3), 4, width=16, **kw),
}
EVENT = {
    "mlp": (2, 3),
    "energy": (6,),
    "time_mlp": (2, 3),
    "time_mlp_labels": (6,),
    "unet": (2, 8, 8),
    "unet_labels": (1, 6, 5),
    "classifier": (2, 3),
}
TIMED = [name for name in BUILD if name not in ("mlp", "energy")]
LABELLED = ["time_mlp_labels", "unet_labels"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def alive(name, seed=0):
    """A network in float64 whose every weight is random, as after training: none rests at its start."""
    network = BUILD[name](generator=seeded(seed)).double()
    g = seeded(seed + 100)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=g, dtype=parameter.dtype)
    return network


def points(name, n=5, seed=1):
    return torch.randn(n, *EVENT[name], generator=seeded(seed), dtype=torch.float64)


def arguments(name, n=5):
    """What stands beside x: nothing, a time per row, or a time and a label per row."""
    time = torch.linspace(-2, 2, n, dtype=torch.float64)
    if name in LABELLED:
        return (time, torch.arange(n) % 4 - 1)
    return (time,) if name in TIMED else ()


@pytest.mark.parametrize("name", BUILD)
def test_an_output_depends_on_its_own_row_alone(name):
    network, x, rest = alive(name), points(name), arguments(name)
    together = network(x, *rest)
    alone = torch.cat([network(x[i : i + 1], *(a[i : i + 1] for a in rest)) for i in range(len(x))])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-11)
    assert network(x[:0], *(a[:0] for a in rest)).shape == (0, *together.shape[1:])


@pytest.mark.parametrize("name", BUILD)
def test_outputs_have_the_promised_shape(name):
    shape = {"energy": (5,), "classifier": (5, 4)}.get(name, (5, *EVENT[name]))
    assert alive(name)(points(name), *arguments(name)).shape == shape


@pytest.mark.parametrize("name", BUILD)
def test_second_derivatives_are_right(name):
    network, x, rest = alive(name), points(name, 2).requires_grad_(), arguments(name, 2)
    assert torch.autograd.gradgradcheck(lambda x: network(x, *rest), (x,), fast_mode=True)


@pytest.mark.parametrize("name", BUILD)
def test_the_derivative_has_no_jumps(name):
    """Halving the step halves the greatest change of a smooth derivative; across a kink it would stay."""
    network = alive(name)
    start, direction = points(name, 2)

    def greatest_change(n):
        s = torch.linspace(-1, 1, n + 1, dtype=torch.float64).requires_grad_()
        x = start + s.reshape(-1, *[1] * start.ndim) * direction
        rest = (0.5, torch.tensor(1))[: len(arguments(name))]
        slope = torch.autograd.grad(network(x, *rest).sum(), s)[0]
        return slope.diff().abs().max()

    assert greatest_change(800) / greatest_change(400) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("name", BUILD)
def test_every_weight_matters(name):
    network = alive(name)
    network(points(name), *arguments(name)).square().sum().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad.abs().max() > 1e-8, parameter_name


@pytest.mark.parametrize("name", BUILD)
def test_a_generator_alone_decides_the_weights(name):
    before = torch.get_rng_state()
    first, again, other = (BUILD[name](generator=seeded(s)).state_dict() for s in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", BUILD)
def test_initialise_gives_back_the_first_weights(name):
    first = BUILD[name](generator=seeded()).state_dict()
    redrawn = initialise(alive(name).float(), generator=seeded()).state_dict()
    assert all(torch.equal(first[key], redrawn[key]) for key in first)


def test_without_a_generator_the_global_seed_decides():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first = MLP(4).state_dict()
        torch.manual_seed(3)
        again = MLP(4).state_dict()
        other = MLP(4).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["layers.0.weight"], other["layers.0.weight"])


def test_first_weights_are_uniform_within_one_over_root_fan_in():
    network = MLP(100, width=400, generator=seeded())
    for weight, fan_in in ((network.layers[0].weight, 100), (network.layers[2].weight, 400)):
        scaled = weight.detach().flatten() * fan_in**0.5
        n = len(scaled)
        assert scaled.abs().max() <= 1
        assert abs(scaled.mean()) < 4 * (1 / 3 / n) ** 0.5
        assert abs(scaled.square().mean() - 1 / 3) < 4 * (4 / 45 / n) ** 0.5


def test_initialise_refuses_a_layer_that_it_does_not_know():
    with pytest.raises(ValueError, match="network has parameters in '1', a PReLU"):
        initialise(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.PReLU()))


@pytest.mark.parametrize("name", TIMED)
def test_networks_that_know_time_start_as_zero(name):
    network = BUILD[name](generator=seeded()).double()
    assert network(points(name), *arguments(name)).abs().max() == 0


@pytest.mark.parametrize("name", TIMED)
@pytest.mark.parametrize("t", [0.25, torch.tensor(0.25), torch.tensor([0.25])], ids=["number", "scalar", "one row"])
def test_a_time_for_all_is_the_same_time_for_each(name, t):
    network, x = alive(name), points(name)
    expected = network(x, torch.full((5,), 0.25, dtype=torch.float64))
    torch.testing.assert_close(network(x, t), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", TIMED)
def test_no_two_times_look_alike(name):
    """From -6 to 6 in steps of 0.03, any two times give outputs apart: no period of the features is too short."""
    network, t = alive(name), torch.linspace(-6, 6, 401, dtype=torch.float64)
    out = network(points(name, 1).expand(401, *EVENT[name]), t).flatten(1)
    distances = torch.cdist(out, out) + torch.eye(401) * 1e9
    assert distances.min() > 0.01 * out.std(dim=0).norm()


@pytest.mark.parametrize("name", TIMED)
def test_time_enters_by_sines_and_cosines_an_octave_apart(name):
    network, seen = alive(name), []
    embed = network.embed if name.startswith("unet") else network.trunk.embed
    embed.from_time.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    t = torch.linspace(-5, 5, 7, dtype=torch.float64)
    network(points(name, 7), t)
    angles = torch.stack([t / 8, t / 4, t / 2, t, 2 * t, 4 * t, 8 * t, 16 * t], dim=1)
    torch.testing.assert_close(seen[0], torch.cat([angles.sin(), angles.cos()], dim=1), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["time_mlp", "time_mlp_labels", "classifier"])
def test_far_from_the_data_the_output_stays_bounded(name):
    """Along a ray the output tends to a limit, so that a sampler that strays does not run away."""
    network, x = alive(name), points(name)
    far, farther = network(1e6 * x, 0.5), network(1e8 * x, 0.5)
    torch.testing.assert_close(far, farther, rtol=1e-4, atol=1e-4)


def test_attention_is_the_scaled_dot_product():
    network = alive("unet")
    h = torch.randn(3, 16, 4, 5, generator=seeded(), dtype=torch.float64)
    attention = network.attention
    query, key, value = (a.transpose(1, 2) for a in attention.query_key_value(attention.norm(h)).flatten(2).chunk(3, 1))
    mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    expected = h + attention.out(mixed.transpose(1, 2).reshape(h.shape))
    torch.testing.assert_close(attention(h), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", LABELLED)
def test_label_minus_one_is_no_label(name):
    network, x, t = alive(name), points(name), arguments(name)[0]
    none = network(x, t)
    torch.testing.assert_close(network(x, t, label=torch.full((5,), -1)), none, rtol=0, atol=1e-12)
    torch.testing.assert_close(network(x, t, label=-1), none, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", LABELLED)
def test_each_label_gives_another_field(name):
    network, x, t = alive(name), points(name, 1), 0.5
    outputs = torch.stack([network(x, t, label=torch.tensor([k])).flatten() for k in (-1, 0, 1, 2)])
    assert torch.pdist(outputs).min() > 1e-3


@pytest.mark.parametrize("name", LABELLED)
def test_small_integer_labels_are_welcome(name):
    network, x, t = alive(name), points(name), 0.5
    label = torch.tensor([2, -1, 0, 1, 2])
    assert torch.equal(network(x, t, label.to(torch.int8)), network(x, t, label))


@pytest.mark.parametrize("name", BUILD)
def test_double_precision_is_double_throughout(name):
    """The output moves smoothly under an input change far below what float32 resolves."""
    network, x, rest = alive(name), points(name), arguments(name)
    tiny = 1e-11
    x.requires_grad_()
    out = network(x, *rest)
    expected = torch.autograd.grad(out.sum(), x)[0].sum() * tiny
    moved = (network(x + tiny, *rest) - out).sum()
    assert out.dtype == torch.float64
    torch.testing.assert_close(moved, expected, rtol=1e-2, atol=1e-13)


class AllOn(TorchDispatchMode):
    """Every tensor that any operation makes must be on one device."""

    def __init__(self, device):
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        out = operation(*arguments, **(keywords or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            assert not isinstance(tensor, torch.Tensor) or tensor.device.type == self.device, operation
        return out


@pytest.mark.parametrize("made", ["there", "moved there"])
@pytest.mark.parametrize("name", BUILD)
def test_everything_happens_on_the_device_of_the_input(name, made):
    if made == "there":
        with torch.device("meta"):
            network = BUILD[name]()
    else:
        network = BUILD[name](generator=seeded()).to("meta")
    rest = [a.float().to("meta") if a.is_floating_point() else a.to("meta") for a in arguments(name)]
    x = torch.empty(5, *EVENT[name], device="meta")
    with AllOn("meta"):
        assert network(x, *rest).shape[0] == 5
        assert network(x, *rest[:1]).shape[0] == 5


@pytest.mark.parametrize("side", [(8, 8), (28, 28), (32, 32), (7, 30), (1, 1)])
def test_the_unet_takes_any_side_and_sees_the_whole_image(side):
    network = initialise(UNet(1, width=8, generator=seeded()), generator=seeded(1)).double()
    torch.nn.init.normal_(network.last.weight, generator=seeded(2))
    x = torch.randn(1, 1, *side, generator=seeded(3), dtype=torch.float64).requires_grad_()
    out = network(x, 0.5)
    assert out.shape == x.shape
    corner = torch.autograd.grad(out[0, 0, 0, 0], x)[0]
    assert (corner.abs() > 1e-12).all()


def test_a_classifier_learns_the_posterior_of_the_noised_classes():
    """Classes N(-1, 1/4) and N(1, 1/4), noise t: the log-odds are 2x / (1/4 + t^2)."""
    g = seeded()
    label = torch.arange(2000) % 2
    clean = (2.0 * label - 1)[:, None] + 0.5 * torch.randn(2000, 1, generator=g)
    network = NoisyClassifier(1, 2, width=32, depth=1, generator=g)

    def loss(model, x, label, *, generator):
        t = torch.rand(len(x), generator=generator)
        noised = x + t[:, None] * torch.randn(x.shape, generator=generator)
        return torch.nn.functional.cross_entropy(model(noised, t), label)

    x, t = torch.linspace(-2, 2, 41)[:, None], 0.5
    exact = torch.sigmoid(2 * x[:, 0] / (0.25 + t**2))
    assert (network(x, t).softmax(1)[:, 1] - exact).abs().max() > 0.4
    fit(network, loss, (clean, label), n_steps=500, lr=3e-3, generator=g)
    assert (network(x, t).softmax(1)[:, 1] - exact).abs().max() < 0.05


@pytest.mark.parametrize(
    ("message", "build"),
    [
        ("event_shape must be a positive integer, got 0", lambda: MLP(0)),
        ("event_shape must be a positive integer, got 2.0", lambda: MLP(2.0)),
        ("event_shape must be a positive integer, got None", lambda: NoisyClassifier(None, 2)),
        ("event_shape must be a positive integer, got -2", lambda: TimeMLP((3, -2))),
        ("width must be a positive integer, got 0", lambda: MLP(2, width=0)),
        ("width must be a positive integer, got 1.5", lambda: TimeMLP(2, width=1.5)),
        ("width must be a positive integer, got 0", lambda: UNet(1, width=0)),
        ("depth must be a positive integer, got 0", lambda: MLP(2, depth=0)),
        ("depth must be a positive integer, got 0", lambda: NoisyClassifier(2, 2, depth=0)),
        ("out_dim must be a positive integer, got 0", lambda: MLP(2, out_dim=0)),
        ("n_classes must be a positive integer, got 0", lambda: TimeMLP(2, n_classes=0)),
        ("n_classes must be a positive integer, got None", lambda: NoisyClassifier(2, None)),
        ("channels must be a positive integer, got '3'", lambda: UNet("3")),
    ],
)
def test_sizes_are_checked(message, build):
    with pytest.raises(ValueError, match=message):
        build()


X = torch.zeros(4, 2)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (r"x must have shape \(B, 2\), got \(4, 3\)", lambda: MLP(2)(torch.zeros(4, 3))),
        (r"x must have shape \(B, 2\), got \(2,\)", lambda: MLP(2)(torch.zeros(2))),
        (r"x must have shape \(B, 1, 8, 8\), got \(4, 64\)", lambda: TimeMLP((1, 8, 8))(torch.zeros(4, 64), 0.5)),
        (r"x must have shape \(B, 2\), got \(4, 1, 2\)", lambda: NoisyClassifier(2, 3)(X[:, None], 0.5)),
        (r"x must have shape \(B, 3, H, W\), got \(4, 1, 8, 8\)", lambda: UNet(3)(torch.zeros(4, 1, 8, 8), 0.5)),
        (r"x must have shape \(B, 1, H, W\), got \(4, 8, 8\)", lambda: UNet(1)(torch.zeros(4, 8, 8), 0.5)),
        ("x must be torch.float32 like the weights of the network, got torch.float64", lambda: MLP(2)(X.double())),
        ("x must be torch.float64 like .* got torch.float32", lambda: TimeMLP(2).double()(X, 0.5)),
        ("x must be torch.float32 like .* got torch.uint8", lambda: UNet(1)(torch.zeros(1, 1, 8, 8).byte(), 0.5)),
        (r"t must be a scalar or have shape \(4,\), got \(3,\)", lambda: TimeMLP(2)(X, torch.zeros(3))),
        (r"t must be a scalar or have shape \(4,\), got \(4, 1\)", lambda: TimeMLP(2)(X, torch.zeros(4, 1))),
        (
            "label was given to a network without classes",
            lambda: TimeMLP(2)(X, 0.5, label=torch.zeros(4, dtype=torch.long)),
        ),
        (
            r"label must lie in 0 ... 2, or be -1 for none, got 0 ... 3",
            lambda: TimeMLP(2, n_classes=3)(X, 0.5, label=torch.arange(4)),
        ),
        (
            r"label must lie in 0 ... 2, or be -1 for none, got -2 ... 1",
            lambda: UNet(1, n_classes=3)(torch.zeros(4, 1, 4, 4), 0.5, label=torch.arange(4) - 2),
        ),
        ("label must hold integers, got torch.float32", lambda: TimeMLP(2, n_classes=3)(X, 0.5, label=torch.ones(4))),
        (
            r"label must be a scalar or have shape \(4,\), got \(3,\)",
            lambda: TimeMLP(2, n_classes=3)(X, 0.5, label=torch.arange(3)),
        ),
    ],
)
def test_calls_are_checked(message, call):
    with pytest.raises(ValueError, match=message):
        call()
