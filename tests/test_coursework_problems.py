"""Problems hide no mistake, and whatever is wrong on any problem is refused by its name."""

import pytest
import torch

from scorebook.coursework import problems
from scorebook.coursework.guard import Refusal, Student
from scorebook.sde import VESDE, VPSDE, SubVPSDE

DOUBLE = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=1):
    return torch.randn(shape, generator=generator(seed), dtype=DOUBLE)


@pytest.mark.parametrize("seed", [True, 1.0, "1", None])
def test_a_seed_is_an_integer(seed):
    assert problems.seeded(3).initial_seed() == 3
    with pytest.raises(ValueError, match="seed must be an integer"):
        problems.seeded(seed)


def test_what_the_student_draws_does_not_move_the_draws_of_the_check():
    one, other = generator(), generator()
    problems.child(one)
    torch.rand(100, generator=problems.child(other))
    assert torch.equal(torch.rand(3, generator=one), torch.rand(3, generator=other))


@pytest.mark.parametrize("make", [problems.random_sde, lambda g: problems.random_mixture(2, g)])
def test_a_problem_is_that_of_its_seed(make):
    def told(problem):
        return repr(problem) if isinstance(problem, VPSDE | SubVPSDE) else problem.means.tolist()

    assert told(make(generator(3))) == told(make(generator(3))) != told(make(generator(4)))


def test_both_kinds_of_sde_that_shrink_are_drawn():
    assert {type(problems.random_sde(generator(seed))) for seed in range(20)} == {VPSDE, SubVPSDE}


def test_a_random_sde_forgets_most_of_its_points_and_not_all_at_once():
    drawn = [problems.random_sde(generator(seed)) for seed in range(40)]
    for name, low, high in (("beta_min", 0.5, 1.5), ("beta_max", 6.0, 12.0)):
        values = [getattr(process, name) for process in drawn]
        assert low <= min(values) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < max(values) <= high


def test_a_random_mixture_is_of_three_round_gaussians_none_of_which_is_lost():
    drawn = [problems.random_mixture(2, generator(seed)) for seed in range(40)]
    weights, means, variances = (
        torch.stack([getattr(law, name) for law in drawn]) for name in ("weights", "means", "covariances")
    )
    assert (means.shape, variances.shape) == ((40, 3, 2), (40, 3))
    assert 0.2 / 2.6 <= weights.min() < weights.max() <= 1.2 / 1.6
    assert means.std().item() == pytest.approx(1.5, abs=4 * 1.5 / (2 * means.numel()) ** 0.5)
    assert 0.1 <= variances.min() < 0.2 < 1.0 < variances.max() <= 1.1


@pytest.mark.parametrize("process", [VPSDE(), VESDE()])
def test_the_drift_is_its_rate_times_the_point(process):
    t, x = torch.linspace(0.1, 0.9, 5, dtype=DOUBLE), normal(5, 3)
    torch.testing.assert_close(problems.drift_rate(process, t)[:, None] * x, process.drift(x, t))


def test_the_root_mean_square_is_that_of_every_number():
    assert problems.rms(torch.tensor([[3.0, 4.0], [0.0, 5.0]], dtype=DOUBLE)) == pytest.approx(12.5**0.5)


def test_only_standard_noise_is_standard():
    z = normal(4096, 3)
    assert problems.is_standard(z)
    assert not any(problems.is_standard(other) for other in (1.1 * z, z + 0.1, z.sign() * 2))


@pytest.mark.parametrize(("errors", "right"), [(-5.1, False), (-4.9, True), (4.9, True), (5.1, False)])
def test_a_mean_and_a_spread_may_be_five_of_their_standard_errors_off(errors, right):
    z = normal(4096, 3)
    z = (z - z.mean()) / z.std()
    assert problems.is_standard(z + errors / z.numel() ** 0.5) is right
    assert problems.is_standard(z * (1 + errors / (2 * z.numel()) ** 0.5)) is right


def test_a_function_that_couples_rows_is_refused():
    x = normal(16, 2)
    student = Student("f(x)")
    problems.refuse_coupling(student, torch.sin, x, x.sin(), 1e-9)
    with pytest.raises(Refusal, match="other points of its batch"):
        problems.refuse_coupling(student, lambda x: x - x.mean(0), x, x - x.mean(0), 1e-9)


def test_a_function_that_adds_up_from_row_to_row_is_refused():
    x = normal(16, 2)
    with pytest.raises(Refusal, match="other points of its batch"):
        problems.refuse_coupling(Student("f(x)"), lambda x: x.cumsum(0), x, x.cumsum(0), 1e-9)


@pytest.mark.parametrize("noise", ["the generator's", "the global"])
def test_a_sampler_that_couples_rows_is_refused_wherever_its_noise_comes_from(noise):
    def run(coupled):
        def sampler(x, source):
            z = torch.randn(x.shape, generator=source if noise == "the generator's" else None, dtype=x.dtype)
            return x / (x.norm() if coupled else 2.0) + z

        return sampler

    before = torch.get_rng_state()
    problems.refuse_coupled_rows(run(False), normal(16, 2), generator())
    with pytest.raises(Refusal, match="when others of its batch start elsewhere"):
        problems.refuse_coupled_rows(run(True), normal(16, 2), generator())
    torch.set_rng_state(before)


DEPENDENT = {
    "all points of the batch": lambda z: z[:1].expand_as(z),
    "all coordinates of a point": lambda z: z[:, :1].expand_as(z),
    "coordinates 0 and 2": lambda z: torch.cat([z[:, :2], -z[:, :1], z[:, 3:]], 1),
    "points 0 and 1 of": lambda z: z[::2].repeat_interleave(2, 0),
    "points 0 and 1024": lambda z: torch.cat([z[:1024], z[:1024]]),
    "points 0 and 1024 of": lambda z: torch.cat([z[:1024], z[:1024] * normal(1024, 4, seed=5).sign()]),
    "numbers of the noise come more than once": lambda z: torch.cat([z[:1024], -z[:1024].flip(0)]),
}


@pytest.mark.parametrize("words", DEPENDENT)
def test_noise_that_is_not_drawn_for_each_number_is_refused(words):
    with pytest.raises(Refusal, match=words) as refused:
        problems.refuse_dependent_noise(DEPENDENT[words](normal(2048, 4)))
    assert refused.value.mistake == "shared_noise"


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("precision", [torch.float32, DOUBLE])
def test_noise_that_is_drawn_anew_passes(seed, precision):
    one, other = (normal(2048, 4, seed=2 * seed + k).to(precision).double() for k in (1, 2))
    problems.refuse_dependent_noise(one, other)
    problems.refuse_dependent_noise(one.sign(), other.sign())
    problems.refuse_dependent_noise(1e-6 * one.sign())


def test_noise_that_comes_again_in_the_next_call_is_refused():
    z = normal(2048, 4)
    for again in (z, -z, z + 0.5 * normal(2048, 4, seed=2)):
        with pytest.raises(Refusal, match="different seeds got the same noise"):
            problems.refuse_dependent_noise(z, again)


def test_what_comes_again_with_its_point_is_no_noise_of_a_fixed_seed():
    x, z = normal(2048, 4), normal(2048, 4, seed=2)
    known = 3 * (2 * x).sin()
    problems.refuse_dependent_noise(known, known, (2 * x.flip(0)).sin().flip(0) * 3)
    problems.refuse_dependent_noise(known + z, known + normal(2048, 4, seed=3), known + normal(2048, 4, seed=4))
    with pytest.raises(Refusal, match="different seeds got the same noise"):
        problems.refuse_dependent_noise(known + z, known + z, known + z.flip(0))


def test_an_estimate_that_is_mostly_noise_is_refused():
    problems.refuse_loud_noise("estimate", 1.4, 1.0)
    with pytest.raises(Refusal, match=r"scatters by 1\.6 around its mean, the right one by 1 at most"):
        problems.refuse_loud_noise("estimate", 1.6, 1.0)


def test_an_sde_that_goes_on_is_mirrored_in_its_ends():
    inside, process = VPSDE(), problems.continued(VPSDE())
    x, t = normal(1, 3), torch.tensor(0.3, dtype=DOUBLE)
    for beside in (t, -t, 2 - t, 2 + t, t - 4):
        for name in ("alpha", "sigma", "diffusion", "beta", "integrated_beta"):
            torch.testing.assert_close(getattr(process, name)(beside), getattr(inside, name)(t))
        torch.testing.assert_close(process.drift(x, beside), inside.drift(x, t))


def test_a_score_asked_at_another_time_is_refused_where_that_can_be_told():
    t, process = torch.tensor(0.3, dtype=DOUBLE), VPSDE()
    problems.refuse_other_times([], t, process)
    problems.refuse_other_times([t, t.expand(4)], t, process)
    for asked, words in (
        (process.sigma(t), "at σ"),
        (1 - t, "at 1 − t"),
        (t + 0.01, "another time"),
        (1.0001 * t, "another time"),
        (t - 0.1, r"t \+ dt"),
    ):
        with pytest.raises(Refusal, match=words):
            problems.refuse_other_times([t, asked], t, process, dt=torch.tensor(-0.1, dtype=DOUBLE))
