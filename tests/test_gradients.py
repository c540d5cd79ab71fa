"""A function that is cut off from autograd is refused; one that is constant, rough, random or steep is not."""

import numpy as np
import pytest
import torch
from torch import nn

from scorebook.lab.distributions import GaussianMixture
from scorebook.lab.gradients import checked, outside_inference_mode, recording
from scorebook.lab.networks import initialise
from scorebook.score_matching import divergence, implicit_score_matching_loss, score_of, value_and_divergence
from scorebook.sliced_score_matching import sliced_divergence, sliced_score_matching_loss, value_and_slices

DIM = 5
DTYPES = [torch.float32, torch.float64, torch.float16]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network(*middle):
    return initialise(nn.Sequential(nn.Linear(DIM, 32), *middle, nn.Linear(32, DIM)), generator=generator())


NET, KINKED = network(nn.SiLU()), network(nn.ReLU())
SCALE = nn.Parameter(torch.tensor(0.5))
PLACES = {
    "near 0": torch.randn(8, DIM, generator=generator()),
    "at 0": torch.zeros(3, DIM),
    "one point": torch.randn(1, DIM, generator=generator(1)),
    "far": 1e4 + 1e3 * torch.randn(4, DIM, generator=generator(2)),
}


def of_dtype(module, x):
    """A network in the precision of ``x``, whichever it was in before."""
    return module.to(x.dtype)(x)


def energy(x):
    return -0.25 * x.square().sum(1).square()


def without_recording(function):
    def call(x):
        with torch.no_grad():
            return function(x)

    return call


def in_inference_mode(x):
    with torch.inference_mode():
        y = of_dtype(NET, x)
    return y.clone()


def gradient(x, **options):
    return torch.autograd.grad(energy(x).sum(), x, **options)[0]


def gradient_of_copy(x):
    return gradient(x.detach().requires_grad_())


def accumulated(x):
    copy = x.detach().requires_grad_()
    energy(copy).sum().backward()
    return copy.grad


def written_in_place(x):
    y = torch.zeros_like(x)
    with torch.no_grad():
        y[:] = x
    return y


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, g):
        return 2 * g * ctx.saved_tensors[0]


CUT = {
    "no_grad": (without_recording(lambda x: of_dtype(NET, x)), r"runs in part under torch\.no_grad\(\)"),
    "no_grad and kinks": (without_recording(lambda x: of_dtype(KINKED, x)), r"runs in part under torch\.no_grad\(\)"),
    "no_grad beside a line": (lambda x: -2 * x + without_recording(lambda x: 0.5 * x)(x), "runs in part"),
    "inference mode": (in_inference_mode, r"torch\.inference_mode\(\)"),
    "detached": (lambda x: -x.detach(), r"calls \.detach"),
    "detached factor": (lambda x: x * x.detach(), r"calls \.detach"),
    "a projection": (lambda x: x / (1 + x.detach().square().sum(1, keepdim=True)).sqrt(), r"calls \.detach"),
    "data": (lambda x: x - 3 * x.data, r"calls \.data"),
    "item": (lambda x: torch.stack([row * float(row[0].detach()) for row in x]), r"calls \.detach"),
    "a list": (lambda x: torch.tensor(x.tolist(), dtype=x.dtype), r"calls \.tolist"),
    "in place": (written_in_place, "runs in part"),
    "NumPy": (lambda x: torch.as_tensor(np.tanh(x.detach().numpy())), r"calls \.detach"),
    "NumPy at once": (lambda x: torch.as_tensor(np.tanh(x.numpy())), "leaves PyTorch for NumPy"),
    "energy": (gradient, "without create_graph=True"),
    "energy and weight": (lambda x: SCALE.to(x.dtype) * gradient(x), "without create_graph=True"),
    "energy and line": (lambda x: gradient(x) - x, "without create_graph=True"),
    "energy of a copy": (gradient_of_copy, r"calls \.detach"),
    "backward": (accumulated, r"calls \.detach"),
}

NOT_CUT = {
    "line": lambda x: -x,
    "network": lambda x: of_dtype(NET, x),
    "kinks": lambda x: of_dtype(KINKED, x),
    "relu": torch.relu,
    "zero": torch.zeros_like,
    "constant": lambda x: torch.full(x.shape, 3.0, dtype=x.dtype),
    "parameter": lambda x: SCALE.expand_as(x),
    "energy": lambda x: gradient(x, create_graph=True),
    "own function": Square.apply,
    "checkpointed": lambda x: torch.utils.checkpoint.checkpoint(Square.apply, x, use_reentrant=True),
    "Laplace": lambda x: torch.where(x > 0, -1.0, 1.0).to(x),
    "sign": lambda x: -x.sign(),
    "steps": lambda x: (10 * x).floor() if x.abs().max() < 100 else x,
    "table": lambda x: torch.linspace(0, 1, 11).to(x)[(x.detach().clamp(0, 1) * 10).long()],
    "random": lambda x: torch.randn(x.shape, dtype=x.dtype),
    "random and line": lambda x: torch.randn_like(x) - x,
    "random and cut": lambda x: torch.randn(x.shape, dtype=x.dtype) + 0 * x.detach(),
    "dropout": lambda x: nn.functional.dropout(x, 0.5) + 0 * x.detach(),
    "greatest taken off": lambda x: (x - x.detach().amax(1, keepdim=True)).softmax(1),
    "only there": lambda x: only_there(x, PLACES),
}


def only_there(x, places):
    """A density with a checked support, which consists of a few points."""
    if not any(place.shape == x.shape and torch.equal(place.to(x.dtype), x) for place in places.values()):
        raise ValueError("outside of the support")
    return x.detach().clone()


def called(function, x):
    with recording(x) as inside:
        return checked("score", function, inside)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", CUT)
def test_a_cut_is_refused_with_its_cause_and_its_cure(kind, dtype):
    function, cause = CUT[kind]
    with pytest.raises(ValueError, match=f"score must be differentiable in x .*{cause}.*create_graph=True.*score_of"):
        called(function, PLACES["near 0"].to(dtype))


@pytest.mark.parametrize("dtype", [*DTYPES, torch.bfloat16], ids=str)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", NOT_CUT)
def test_whatever_is_not_cut_raises_no_alarm(kind, place, dtype):
    assert called(NOT_CUT[kind], PLACES[place].to(dtype)).shape == PLACES[place].shape


def test_a_function_that_is_recorded_is_called_once_and_a_suspect_no_more_once_found_right():
    calls = []

    def counted(x):
        calls.append(len(x))
        return -x

    def suspect(x):
        return counted(x) + 0 * x.detach()

    called(counted, PLACES["near 0"])
    assert len(calls) == 1
    called(suspect, PLACES["near 0"])
    assert len(calls) > 2
    calls.clear()
    called(suspect, PLACES["near 0"])
    assert len(calls) == 1


def test_the_check_leaves_the_global_generator_where_one_call_leaves_it():
    def suspect(x):
        return nn.functional.dropout(x, 0.5) + 0 * x.detach()

    torch.manual_seed(0)
    once = suspect(PLACES["near 0"])
    state = torch.get_rng_state()
    torch.manual_seed(0)
    assert torch.equal(called(suspect, PLACES["near 0"]), once)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("grad", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_inside_recording_autograd_records_whatever_the_mode_outside(grad):
    with grad():
        x = torch.ones(3, 2)
        with recording(x) as inside:
            y = inside**2
        before = torch.is_grad_enabled()
        with outside_inference_mode():
            assert torch.is_grad_enabled() == before
            assert not torch.is_inference_mode_enabled()
    assert torch.equal(torch.autograd.grad(y.sum(), inside)[0], 2 * torch.ones(3, 2))


LAW = ([0.3, 0.7], [[-1.0, 0.5], [1.0, 0.0]], [[[1.0, 0.2], [0.2, 0.5]], [[0.3, 0.0], [0.0, 0.4]]])
FUNCTIONS = {
    "score_of": lambda law, x: score_of(law.log_prob, x),
    "divergence": lambda law, x: divergence(law.score, x),
    "divergence (chunks)": lambda law, x: divergence(law.score, x, chunk_size=1),
    "sliced_divergence": lambda law, x: sliced_divergence(law.score, x, torch.ones_like(x)),
    "implicit loss": lambda law, x: implicit_score_matching_loss(law.score, x),
    "sliced loss": lambda law, x: sliced_score_matching_loss(law.score, x, generator=generator()),
    "score of a score": lambda law, x: divergence(lambda x: score_of(law.log_prob, x), x),
}


@pytest.mark.parametrize("made", ["outside", "inside"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_in_inference_mode_the_values_are_those_outside_and_the_results_can_be_used(name, made):
    """Whether the law and the points were made outside the mode or inside, where nothing of theirs can be recorded."""
    call, points = FUNCTIONS[name], np.random.default_rng(0).standard_normal((4, 2))
    law, x = GaussianMixture(*LAW), torch.tensor(points, dtype=torch.float32)
    expected = call(law, x).detach()
    with torch.inference_mode():
        if made == "inside":
            law, x = GaussianMixture(*LAW), torch.tensor(points, dtype=torch.float32)
        found = call(law, x)
    torch.testing.assert_close(found, expected)
    assert expected.abs().max() > 0.1
    assert not found.requires_grad
    parameter = torch.ones((), requires_grad=True)
    (parameter * found.sum()).backward()  # a tensor of inference mode could not be saved for this


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in ("score_of", "score of a score")])
@pytest.mark.parametrize("kind", ["no_grad", "no_grad beside a line", "energy", "energy and weight", "energy and line"])
@pytest.mark.parametrize("grad", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_each_function_refuses_a_cut_field(name, kind, grad):
    class Law:
        score = staticmethod(CUT[kind][0])

    with pytest.raises(ValueError, match=r"^(field|model) must be differentiable in x"), grad():
        FUNCTIONS[name](Law, PLACES["near 0"])


@pytest.mark.parametrize("cut", [without_recording(energy), lambda x: energy(x) - energy(3 * x.detach())])
def test_the_score_of_a_cut_log_density_is_refused(cut):
    with pytest.raises(ValueError, match="log_prob must be differentiable in x"):
        score_of(cut, PLACES["near 0"])


def test_a_model_made_in_inference_mode_serves_outside():
    with torch.inference_mode():
        law = GaussianMixture(*LAW)
    x = torch.randn(4, 2, generator=generator())
    torch.testing.assert_close(divergence(law.score, x), divergence(GaussianMixture(*LAW).score, x))


class Changeable(nn.Module):
    """A line, of which a half is hidden from autograd where ``hides`` or in evaluation mode."""

    hides, quiet_in_eval = False, False

    def forward(self, x):
        hidden = self.hides or (self.quiet_in_eval and not self.training)
        return -x - (x.detach() if hidden else x).tanh()


@pytest.mark.parametrize("in_evaluation", [False, True])
def test_a_module_that_begins_to_hide_is_refused_at_once(in_evaluation):
    x, model = torch.randn(4, DIM, generator=generator()), Changeable()
    model.quiet_in_eval = in_evaluation
    divergence(model, x)
    model.hides = not in_evaluation
    with pytest.raises(ValueError, match=r"field must be differentiable.*detach"):
        divergence(model.train(not in_evaluation), x)


def test_a_density_from_torch_distributions_is_called_once():
    """It broadcasts what hangs on x together with what does not, which hides nothing."""
    calls = []

    def log_prob(x):
        calls.append(1)
        return torch.distributions.Normal(x.tanh(), torch.ones(DIM)).log_prob(torch.zeros(DIM)).sum(1)

    score_of(log_prob, torch.randn(4, DIM, generator=generator()))
    assert len(calls) == 1


def half_hidden(x):
    return -x - x.detach()


@pytest.mark.parametrize(
    "evaluate",
    [
        lambda x, **options: value_and_divergence(half_hidden, x, **options),
        lambda x, **options: value_and_slices(half_hidden, x, torch.ones_like(x)[None], **options),
    ],
    ids=["divergence", "slices"],
)
def test_who_has_looked_at_a_field_need_not_look_again(evaluate):
    x = PLACES["near 0"]
    with pytest.raises(ValueError, match=r"field must be differentiable.*detach"):
        evaluate(x)
    value, trace = evaluate(x, check=False)
    assert torch.equal(value, -2 * x)
    torch.testing.assert_close(trace, torch.full_like(trace, -x[0].numel()))
