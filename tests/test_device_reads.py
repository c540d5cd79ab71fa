"""A step waits for the device once: checks of values look at all of them together, and nothing else reads.

On a CPU a read costs nothing, and so shows in no time. Here it is counted: whatever makes a number of Python, a truth
value, an array or a shape of what a tensor holds. A GPU would wait there for all that was asked of it before.
"""

import functools
import math

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from scorebook import controllable_generation as cg
from scorebook import lab, langevin, noise_scales, probability_flow, score_matching, sde, sliced_score_matching
from scorebook.lab.arguments import finite, one_read, positive, require, unit_time
from scorebook.lab.observations import LinearObservation

VP, VE = sde.VPSDE(), sde.VESDE(0.01, 200.0)
N, D = 6, 2
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
READING = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten._unique2.default,
}
LEAVING = {torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu, torch.Tensor.__array__}


class _Scalars(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n += func in READING
        self.n += func is torch.ops.aten.index.Tensor and any(
            part is not None and part.dtype in (torch.bool, torch.uint8) for part in args[1]
        )
        return func(*args, **(kwargs or {}))


class Reads(TorchFunctionMode):
    """Counts the reads of values inside of it."""

    def __init__(self):
        super().__init__()
        self.scalars, self.leaving = _Scalars(), 0

    def __enter__(self):
        self.scalars.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.scalars.__exit__(*error)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        # The state of a generator, bytes, is on the CPU whatever its device.
        self.leaving += func in LEAVING and args[0].dtype != torch.uint8
        return func(*args, **(kwargs or {}))

    @property
    def n(self):
        return self.scalars.n + self.leaving


def reads(run):
    with Reads() as seen:
        run()
    return seen.n


def generator():
    return torch.Generator().manual_seed(0)


def points(seed=0):
    return torch.randn(N, D, generator=torch.Generator().manual_seed(seed))


def network(**options):
    made = lab.TimeMLP(D, width=8, depth=1, generator=generator(), **options)
    torch.nn.init.normal_(made.trunk.last.weight, generator=generator())
    return made


@pytest.mark.parametrize(
    ("read", "n"),
    [
        (lambda x: float(x[0, 0]), 1),
        (lambda x: bool((x > 0).all()), 1),
        (lambda x: x.sum().item(), 1),
        (lambda x: x.tolist(), 1),
        (lambda x: x.numpy(), 1),
        (lambda x: x[x > 0], 1),
        (lambda x: torch.equal(x, x), 1),
        (lambda x: x.nonzero(), 1),
        (lambda x: [1 for each in x if each[0] > 0], N),
        (lambda x: (x * x).sum(1), 0),
    ],
)
def test_a_read_is_seen(read, n):
    assert reads(lambda: read(points())) == n


# Losses, one call of each of which is a step of training

CONDITIONAL = sde.ScoreModel(network(n_classes=3), VP)
SCORE = sde.ScoreModel(network(), VP)
EXPLODING = sde.ScoreModel(network(), VE)
CLASSIFIER = lab.NoisyClassifier(D, 3, width=8, depth=1, generator=generator())
SIGMAS = torch.rand(N, generator=generator()) + 0.1
PLAIN = lab.MLP(D, width=8, depth=1, generator=generator())
MIXTURE = lab.GaussianMixture([0.3, 0.7], [[-1.0, 0.0], [1.0, 0.0]], [0.5, 0.2])
LOG_NORMAL = sde.log_normal_times(VP)
AT_SIGMA = sde.at_noise_scale(EXPLODING, VE)

LOSSES = {
    "score_matching_loss": lambda x: sde.score_matching_loss(SCORE, VP, x),
    "with labels": lambda x: sde.score_matching_loss(CONDITIONAL, VP, x, labels=LABELS, p_drop=0.1),
    "weighted by the model": lambda x: sde.score_matching_loss(SCORE, VP, x, weighting=SCORE.weight),
    "at log-normal times": lambda x: sde.score_matching_loss(SCORE, VP, x, sample_times=LOG_NORMAL),
    "of likelihood": lambda x: sde.score_matching_loss(
        SCORE, VP, x, weighting="likelihood", sample_times=sde.time_sampler(VP, uniform_in="log_noise")
    ),
    "in noise scale": lambda x: noise_scales.denoising_score_matching_loss(AT_SIGMA, x, SIGMAS),
    "classifier_loss": lambda x: cg.classifier_loss(CLASSIFIER, VP, x, LABELS),
    "explicit": lambda x: score_matching.explicit_score_matching_loss(PLAIN, x, MIXTURE.score),
    "implicit": lambda x: score_matching.implicit_score_matching_loss(PLAIN, x),
    "implicit at a time": lambda x: score_matching.implicit_score_matching_loss(lambda x: SCORE(x, 0.5), x),
    "sliced": lambda x: sliced_score_matching.sliced_score_matching_loss(PLAIN, x),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_reads_once(loss):
    assert reads(lambda: LOSSES[loss](points()).backward()) <= 1


@pytest.mark.parametrize("kind", ["plain", "labels", "averaged"])
def test_a_step_of_training_reads_once(kind):
    def train(n_steps):
        model = sde.ScoreModel(network(n_classes=3), VP)
        data = (points(), LABELS) if kind == "labels" else points()

        def loss(model, x, labels=None, *, generator):
            return sde.score_matching_loss(model, VP, x, labels=labels, generator=generator)

        decay = 0.9 if kind == "averaged" else None
        return reads(
            lambda: lab.fit(
                model, loss, data, n_steps=n_steps, batch_size=N, ema_decay=decay, generator=generator(), progress=False
            )
        )

    train(1)  # what the first run of a process reads besides, as PyTorch 2.6 does, is no step's
    assert train(9) - train(2) <= 7


# Scores, one call of each of which a sampler's step makes

SEEN = LinearObservation(torch.tensor([[1.0, 0.5]]), torch.tensor([0.7]), 0.3)
GIVEN = cg.given(CONDITIONAL, label=LABELS)
SCORES = {
    "a function": lambda x, t: -x,
    "a model": SCORE,
    "given": GIVEN,
    "classifier-free": cg.classifier_free(GIVEN, cg.given(CONDITIONAL, label=None), torch.ones(N)),
    "by a classifier": cg.condition(SCORE, cg.class_log_likelihood(CLASSIFIER, LABELS), scale=2.0),
    "diffusion posterior": cg.diffusion_posterior(SCORE, VP, SEEN),
    "pseudoinverse": cg.pseudoinverse_guidance(SCORE, VP, SEEN),
    "moment projection": cg.tweedie_moment_projection(SCORE, VP, SEEN),
    "in another basis": cg.in_basis(SCORE, torch.eye(D)),
    "exact": VP.exact_score(MIXTURE),
    "from another SDE": sde.at_time(AT_SIGMA, VP),
    "compiled or wrapped": lambda x, t: GIVEN(x, t),
}
KNOWN = torch.tensor([True, False])
REPLACED = cg.replace_known(VP, torch.tensor([0.5, 0.0]), KNOWN, generator=generator())


@pytest.mark.parametrize("name", SCORES)
def test_a_call_of_a_score_reads_once(name):
    t = torch.full((N,), 0.5)
    assert reads(lambda: SCORES[name](points(), t)) <= 1


SAMPLERS = {
    "euler_maruyama": lambda score, n: sde.euler_maruyama(VP, score, points(), n_steps=n, generator=generator()),
    "with replacement": lambda score, n: sde.euler_maruyama(
        VP, score, points(), n_steps=n, generator=generator(), constraint=REPLACED
    ),
    "predictor_corrector": lambda score, n: sde.predictor_corrector(
        VP, score, points(), n_steps=n, n_corrector_steps=2, generator=generator()
    ),
    "adams": lambda score, n: probability_flow.sample(VP, score, points(), n_steps=n),
    "heun2": lambda score, n: probability_flow.sample(VP, score, points(), method="heun2", n_steps=n),
    "log_prob": lambda score, n: probability_flow.log_prob(VP, score, points(), method="heun2", n_steps=n),
    "simulate": lambda score, n: sde.simulate(
        lambda x, t: sde.reverse_drift(VP, score, x, t),
        lambda x, t: VP.diffusion(t),
        points(),
        VP.time_grid(n),
        generator=generator(),
    ),
    "langevin": lambda score, n: langevin.langevin(
        lambda x: score(x, torch.full((N,), 0.5)), points(), step_size=1e-3, n_steps=n, generator=generator()
    ),
}


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_step_of_a_sampler_reads_once(sampler, score):
    run = functools.partial(SAMPLERS[sampler], SCORES[score])
    assert reads(lambda: run(9)) - reads(lambda: run(4)) <= 5


def test_a_step_of_twisted_particles_reads_once():
    def run(n):
        cg.twisted_particles(SCORE, VP, SEEN, points().repeat(20, 1), n_steps=n, generator=generator())

    assert reads(lambda: run(9)) - reads(lambda: run(4)) <= 5


def test_a_step_at_a_noise_scale_reads_once():
    def run(n):
        noise_scales.annealed_langevin(
            AT_SIGMA, points(), [2.0, 1.0], step_size=1e-3, n_steps_each=n, generator=generator()
        )

    assert reads(lambda: run(9)) - reads(lambda: run(4)) <= 10


@pytest.mark.parametrize(
    "name", ["a model", "given", "classifier-free", "diffusion posterior", "moment projection", "in another basis"]
)
def test_what_depends_on_time_alone_is_computed_once_for_all_times(name, monkeypatch):
    n_calls = 0
    coefficients = sde.ScoreModel._coefficients

    def counted(self, t):
        nonlocal n_calls
        n_calls += 1
        return coefficients(self, t)

    monkeypatch.setattr(sde.ScoreModel, "_coefficients", counted)
    grid = torch.linspace(0.9, 0.1, 5)
    on_grid = sde.on_grid(SCORES[name], grid)
    n_models = 2 if name == "classifier-free" else 1
    assert n_calls == n_models
    values = [at_t(points()) for at_t in on_grid]
    assert n_calls == n_models
    for t, value in zip(grid, values, strict=True):
        torch.testing.assert_close(value, SCORES[name](points(), t))


@pytest.mark.parametrize("name", SCORES)
def test_a_score_on_a_grid_is_that_score_at_those_times(name):
    grid = torch.linspace(0.9, 0.1, 3)
    for t, at_t in zip(grid, sde.on_grid(SCORES[name], grid), strict=True):
        torch.testing.assert_close(at_t(points()), SCORES[name](points(), t))


class Doubled:
    """Hands on what a model has, as a compiled one does, and is another function."""

    def __init__(self, model):
        self.model = model

    def __getattr__(self, name):
        return getattr(self.model, name)

    def __call__(self, x, t):
        return 2 * self.model(x, t)


def test_what_wraps_a_model_and_hands_its_methods_on_is_itself_called():
    grid = torch.linspace(0.9, 0.1, 3)
    for t, at_t in zip(grid, sde.on_grid(Doubled(SCORE), grid), strict=True):
        torch.testing.assert_close(at_t(points()), 2 * SCORE(points(), t))


# What is put off is not lost


def test_checks_outside_read_each_and_inside_together():
    x = points()
    assert reads(lambda: [finite("x", x) for _ in range(5)]) == 5

    def together():
        with one_read():
            finite("x", x)
            positive("scale", x.abs() + 1)
            unit_time(torch.tensor(0.5))
            unit_time(torch.full((N,), 0.5))

    assert reads(together) == 1


def test_nothing_to_look_at_is_no_read():
    def run():
        with one_read():
            points()

    assert reads(run) == 0


@one_read()
def step(*calls):
    for call in calls:
        call()


def raising(error):
    def call():
        raise error

    return call


def good():
    finite("good", torch.ones(2))


def bad():
    finite("bad", torch.tensor([1.0, math.nan]))


def worse():
    positive("worse", torch.tensor([-1.0, 1.0]))


def test_the_first_that_fails_is_the_one_that_is_raised():
    with pytest.raises(ValueError, match="bad must be finite, got nan among 2"):
        step(good, bad, worse)
    with pytest.raises(ValueError, match="worse must be positive and finite, got -1 among 2"):
        step(good, worse, bad)


def test_what_fails_by_itself_is_told_to_follow_from_a_check_that_fails():
    with pytest.raises(ValueError, match="bad must be finite") as caught:
        step(bad, raising(IndexError("out of range")))
    assert isinstance(caught.value.__cause__, IndexError)
    with pytest.raises(IndexError):
        step(good, raising(IndexError("out of range")))


def test_the_outermost_reads_and_later_checks_read_for_themselves_again():
    order = []
    with pytest.raises(ValueError, match="bad must be finite"):
        step(functools.partial(step, bad), lambda: order.append("after the inner one"))
    assert order == ["after the inner one"]
    with pytest.raises(ValueError, match="bad must be finite"):
        bad()


def test_an_interrupt_leaves_nothing_put_off():
    with pytest.raises(KeyboardInterrupt):
        step(bad, raising(KeyboardInterrupt()))
    with pytest.raises(ValueError, match="bad must be finite"):
        bad()


def test_a_refusal_that_finds_nothing_after_all_refuses_nothing():
    require(torch.tensor(False), lambda: None)
    step(lambda: require(torch.tensor(False), lambda: None))


def test_numbers_come_with_the_same_read():
    def run():
        with one_read() as wanted:
            finite("x", points())
            wanted += [torch.tensor(1 / 3, dtype=torch.float64), torch.tensor(0.5), torch.tensor(2)]
        assert wanted == [1 / 3, 0.5, 2.0]

    assert reads(run) == 1
    with one_read() as wanted:
        wanted.append(torch.tensor(1.0, device="meta"))
    assert math.isnan(wanted[0])


BAD = {
    "labels out of range": lambda: cg.classifier_loss(CLASSIFIER, VP, points(), LABELS + 1),
    "labels of the loss": lambda: sde.score_matching_loss(CONDITIONAL, VP, points(), labels=LABELS + 5),
    "a time outside": lambda: SCORE(points(), torch.full((N,), 1.1)),
    "a time without noise": lambda: SCORE(points(), torch.zeros(N)),
    "points": lambda: sde.score_matching_loss(SCORE, VP, points() / 0),
    "sample_times": lambda: sde.score_matching_loss(
        SCORE, VP, points(), sample_times=lambda n, g: torch.full((n,), 2.0)
    ),
    "a noise scale": lambda: AT_SIGMA(points(), torch.full((N,), 1e3)),
    "no signal": lambda: sde.VPSDE(0.1, 300.0).denoise(lambda x, t: -x, points(), torch.tensor(1.0)),
}
NAMED = {
    "labels out of range": "labels must lie in 0 ... 2, got 1 ... 3",
    "labels of the loss": "label must lie in 0 ... 2, or be -1 for none, got 5 ... 7",
    "a time outside": r"t must lie in \[0, 1\], got values from 1.1 to 1.1",
    "a time without noise": r"sigma\(t\) must be positive and finite, got 0",
    "points": "x must be finite, got",
    "sample_times": r"t must lie in \[0, 1\], got values from 2 to 2",
    "a noise scale": r"noise_to_signal must lie in \[0.01, 200\].*got values from 1000 to 1000",
    "no signal": "t must leave a signal in x",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_value_is_refused_as_ever(name):
    with pytest.raises(ValueError, match=NAMED[name]) as caught:
        BAD[name]()
    # Nothing was looked up out of range before it was read: on a GPU that would end the process.
    assert caught.value.__cause__ is None


def test_a_path_that_leaves_the_numbers_is_stopped_at_that_step():
    n_calls = 0

    def score(x, t):
        nonlocal n_calls
        n_calls += 1
        return -x if n_calls < 4 else x / 0

    with pytest.raises(RuntimeError, match=r"no longer finite in 6 of 6 rows at t=0.6"):
        sde.euler_maruyama(VP, score, points(), n_steps=10, generator=generator())
    assert n_calls == 4
