r"""A check of Metropolis adjustment: Langevin dynamics that accepts or refuses each step.

A step proposes :math:`y = x + \epsilon s(x) + \sqrt{2\epsilon}\,z` and takes it with probability

.. math:: a(x, y) = \min\left(1, \frac{\pi(y)\, q(x \mid y)}{\pi(x)\, q(y \mid x)}\right) .

Where a chain is after one step is an integral over two numbers :math:`z`, for the right sampler and for each of the
wrong ones, and is taken on a fine grid. What it is after several steps is simulated, with many more chains than the
student's.
"""

import collections.abc
import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from scorebook.coursework.guard import Refusal, Student, under_guard
from scorebook.coursework.problems import child, refuse_coupled_rows, seeded
from scorebook.coursework.reports import Answer, Mistake, Report, judge, slips, spelt
from scorebook.lab.arguments import standard_normal, uniform
from scorebook.lab.types import Integer, Number

__all__ = ["check_metropolis"]

_DOUBLE = torch.float64
_STARTS, _COPIES, _STEPS = 4, 4096, 4
# Chains from each start that stand for the truth after several steps, and for what becomes of a mistake.
_TRUE_COPIES, _WRONG_COPIES = 16384, 8192
# Nodes of the grid along each axis, for the truth and for what becomes of a mistake.
_FINE, _COARSE, _REACH = 81, 31, 5.0
_QUADRATURE = 2e-3
# Share of the right answer's spread below which that of few moves is not trusted.
_LEAST = 0.1
# Calls of few chains that tell shared decisions: the share that moves then varies more between calls.
_CALLS, _FEW, _SHARED = 40, 64, 3.0


def check_metropolis(sampler: Callable[..., Any], *, seed: Integer = 0, time_limit: Number | None = 30.0) -> Report:
    r"""Hold a Metropolis-adjusted Langevin sampler against the known law of its chains.

    .. math:: y = x + \epsilon\, s(x) + \sqrt{2\epsilon}\, z, \qquad
              \log a = \log\pi(y) - \log\pi(x) + \log q(x \mid y) - \log q(y \mid x),

    with :math:`\log q(y \mid x) = -\lVert y - x - \epsilon s(x) \rVert^2 / 4\epsilon`. The step is taken where
    :math:`\log u < \log a`; otherwise the chain stays. The target is a mixture in two dimensions. From four starts,
    measured after one step and after four: how many chains moved, how far, and the share of proposals taken that is
    reported; that each chain draws noise and decision of its own, and that no chain moves another.

    Args:
        sampler: the student's callable
            ``sampler(log_prob, x, *, step_size, n_steps, generator) -> (x, acceptance_rate)``, the last states and the
            share of proposals that were taken, one number or one for each chain; ``log_prob(x) -> (B,)``, up to a
            constant, ``x`` of shape ``(B, 2)``. It may do without ``generator``.
        seed: of target, starts and noise.
        time_limit: processor seconds for the student's code; None for no limit.

    Returns:
        The report.

    Source: Roberts & Tweedie (1996), section 1.4.
    """
    student = Student(
        "sampler(log_prob, x, step_size=..., n_steps=..., generator=generator)",
        ("Langevin dynamics", "Accept or refuse: the step without bias"),
    )
    generator = seeded(seed)

    def check():
        problem = _Problem(generator)
        x, group = problem.rows(generator)

        def run(x, n_steps, source):
            given = student.call(
                sampler, problem.log_prob, x.clone(), step_size=problem.step, n_steps=n_steps, generator=source
            )
            return _taken(student, given, x)

        first, second = run(x, 1, child(generator)), run(x, 1, child(generator))
        _refuse_parted_steps(x, first[0])
        _refuse_batch_decision(run, first[0], x, problem, generator)
        _refuse_shared_steps(group, x, first[0], second[0])
        _refuse_shared_decisions(run, problem, generator)
        many = run(x, _STEPS, child(generator))
        answers = problem.answers(x, group, first, many)
        report = judge(
            "check_metropolis",
            answers,
            problem.mistakes(),
            verified="your chains move, and stay, as often and as far as they should",
        )
        if report.mistake is None:
            _refuse_dependent(problem, group, x, first[0])
            _refuse_coupled(run, x[:64], generator)
        return report

    return under_guard("check_metropolis", check, student, time_limit=time_limit)


def _taken(student, given, x) -> tuple[Tensor, Tensor]:
    """States and the mean of the acceptance rates that were returned."""
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        came = f"{len(given)} things" if isinstance(given, (tuple, list)) else type(given).__name__
        raise Refusal(f"your sampler must return (x, acceptance_rate), got {came}", "type")
    states, rate = given
    if isinstance(states, Tensor) and states.ndim == 2 and len(states) < len(x) and states.shape[1] == x.shape[1]:
        raise Refusal(
            f"your sampler returns {len(states)} states for {len(x)} chains: a chain whose proposal is refused stays "
            "where it is, and counts once more",
            "rejected_dropped",
        )
    states = student.tensor(states, x.shape, "what your sampler returns")
    rate = torch.as_tensor(rate, dtype=_DOUBLE) if isinstance(rate, (int, float)) else rate
    rate = torch.as_tensor(rate) if not isinstance(rate, Tensor) and hasattr(rate, "dtype") else rate
    per_chain = isinstance(rate, Tensor) and rate.ndim == 1 and len(rate) == len(x)
    return states, student.tensor(rate, (len(x),) if per_chain else (), "the acceptance rate").mean()


class _Later(collections.abc.Mapping[str, Any]):
    """Predictions of which some cost more, and are made when one of them is asked for."""

    def __init__(self, now, later):
        self.now, self.later = now, functools.cache(later)

    def __getitem__(self, name):
        return self.now[name] if name in self.now else self.later()[name]

    def __iter__(self):
        return iter(self.now | self.later())

    def __len__(self):
        return len(self.now | self.later())


_ONE, _MANY = "after one step", f"after {_STEPS} steps"
_MOVED, _MOVE, _SQUARE = (f"{what} {_ONE}" for what in ("share of chains that moved", "mean move", "mean squared move"))
_RATE, _LATER_RATE = (f"acceptance rate {when}" for when in (_ONE, _MANY))
_STATE, _STATE_SQUARE = (f"{what} {_MANY}" for what in ("mean state", "mean squared state"))


class _Problem:
    """A target, a step and starts; what the right sampler and wrong ones make of them."""

    def __init__(self, generator):
        def draw(*shape):
            return standard_normal(shape, generator=generator, dtype=_DOUBLE)

        def between(low, high, *shape):
            return low + (high - low) * uniform(shape, generator=generator, dtype=_DOUBLE)

        self.means, self.variances = 1.2 * draw(3, 2), between(0.3, 0.6, 3)
        self.log_weights, self.constant = between(0.2, 1.0, 3).log(), between(-3.0, 3.0).item()
        self.step = between(0.33, 0.38).item()
        which = torch.arange(_STARTS) % 3
        self.starts = self.means[which] + 1.2 * self.variances[which, None].sqrt() * draw(_STARTS, 2)
        self.generator = child(generator)

    def log_prob(self, x):
        """The target's log-density up to a constant, at points of any leading shape."""
        squares = (x.unsqueeze(-2) - self.means.to(x)).square().sum(-1)
        parts = self.log_weights - self.variances.log() - squares / (2 * self.variances)
        return parts.to(x).logsumexp(-1) + self.constant

    def score(self, x):
        """Its gradient."""
        gaps = self.means - x.unsqueeze(-2)
        parts = self.log_weights - self.variances.log() - gaps.square().sum(-1) / (2 * self.variances)
        return (parts.softmax(-1).unsqueeze(-1) * gaps / self.variances[:, None]).sum(-2)

    def rows(self, generator):
        """Starts in an order of their own, and the number of the start of each row."""
        order = torch.rand(_STARTS * _COPIES, generator=generator, dtype=_DOUBLE).argsort()
        group = torch.arange(_STARTS).repeat_interleave(_COPIES)[order]
        return self.starts[group], group

    def kernel(
        self,
        x,
        z,
        *,
        drift=1.0,
        assumed=None,
        kick=None,
        width=None,
        ratio=lambda target, proposal: target + proposal,
        probability=lambda log_a: log_a.clamp(max=0).exp(),
        points="",
        power=1.0,
        value=None,
        s=None,
    ):
        """A proposal and the probability with which it is taken, where each part may be wrong."""
        e = self.step
        mean = e * (drift if assumed is None else assumed)
        s = self.score(x) if s is None else s
        y = x + e * drift * s + (math.sqrt(2 * e) if kick is None else kick) * z
        s_y = self.score(y)
        forth, back = y - x - mean * s, x - y - mean * (s if points == "x" else s_y)
        squares = [part.square().sum(-1) ** power for part in (forth, back)]
        proposal = (squares[0] - squares[1]) / (4 * e if width is None else width)
        value = self.log_prob(x) if value is None else value
        return y, probability(ratio(self.log_prob(y) - value, proposal)), s_y

    @staticmethod
    @functools.cache
    def grid(law, nodes):
        """Nodes and weights for a law of the noise."""
        line = torch.linspace(-_REACH, _REACH, nodes, dtype=_DOUBLE)
        unit = (torch.arange(nodes, dtype=_DOUBLE) + 0.5) / nodes
        z, w = (line, (-0.5 * line.square()).exp()) if law == "normal" else (unit, torch.ones_like(unit))
        return torch.cartesian_prod(z, z), torch.outer(w, w).flatten() / w.sum() ** 2

    def after_one(self, nodes, *, law="normal", keep="rejected", rate=lambda share, n: share, **parts):
        """Means and standard deviations of what is measured after one step, by quadrature."""
        z, weight = self.grid(law, nodes)
        x = self.starts.unsqueeze(1)
        y, a, _ = self.kernel(x, z, **parts)
        taken = a * weight
        share = taken.sum(1)
        if keep == "accepted":
            taken = taken / share.unsqueeze(1)
        move = y - x
        means = [taken.sum(1), *(torch.einsum("gk,gki->gi", taken, move**k) for k in (1, 2))]
        squares = [taken.sum(1), *(torch.einsum("gk,gki->gi", taken, move**k) for k in (2, 4))]
        if float(parts.get("kick", 1.0) or 0.0) == 0.0:
            means[0] = share
        stds = [(square - mean**2).clamp(min=0).sqrt() for square, mean in zip(squares, means, strict=True)]
        p = share.mean()
        return dict(zip((_MOVED, _MOVE, _SQUARE), means, strict=True)) | {_RATE: rate(p, 1)}, [
            *stds,
            (p * (1 - p)).sqrt(),
        ]

    def after_many(
        self,
        copies,
        *,
        law="normal",
        keep="rejected",
        rate=lambda share, n: share,
        steps=_STEPS,
        stale="",
        again="",
        **parts,
    ):
        """The same after several steps, by simulation."""
        generator = self.generator.clone_state()
        x = self.starts.repeat_interleave(copies, 0)
        draw = standard_normal if law == "normal" else uniform
        value = s = z = u = None
        total = torch.zeros(len(x), dtype=_DOUBLE)
        for _ in range(steps):
            z = z if z is not None and "z" in again else draw(x.shape, generator=generator, dtype=_DOUBLE)
            u = u if u is not None and "u" in again else uniform((len(x),), generator=generator, dtype=_DOUBLE)
            value = self.log_prob(x) if value is None or stale != "value" else value
            s = self.score(x) if s is None or stale not in ("score", "proposal") else s
            y, a, s_y = self.kernel(x, z, value=value, s=s, **parts)
            taken = u < a
            total += taken
            new = torch.where(taken.unsqueeze(1), y, x)
            if keep == "accepted":
                left = ~taken
                for _ in range(60):
                    if not left.any():
                        break
                    more = draw((int(left.sum()), 2), generator=generator, dtype=_DOUBLE)
                    y, a, _ = self.kernel(x[left], more, **parts)
                    taken = uniform((len(y),), generator=generator, dtype=_DOUBLE) < a
                    new[left] = torch.where(taken.unsqueeze(1), y, x[left])
                    left[left.clone()] = ~taken
            s = s_y if stale == "proposal" else s
            x = new
        states, shares = x.reshape(_STARTS, copies, 2), rate(total / steps, steps)
        means = {_STATE: states.mean(1), _STATE_SQUARE: states.square().mean(1), _LATER_RATE: shares.mean()}
        return means, [states.std(1), states.square().std(1), shares.std()]

    def answers(self, x, group, first, many):
        """What was measured beside the truth."""

        def by_start(values):
            return torch.stack([values[group == k] for k in range(_STARTS)])

        def where(row):
            return f"chains that start at {spelt(self.starts[row])}"

        move = first[0] - x
        moved = (move != 0).any(1).to(_DOUBLE)
        truth, stds = self.after_one(_FINE)
        later, later_stds = self.after_many(_TRUE_COPIES)
        n, all_rows = _COPIES, len(x)
        measured = [by_start(moved), by_start(move), by_start(move**2)]
        answers = [
            Answer(
                name,
                m.mean(1),
                truth[name],
                torch.maximum(m.std(1), _LEAST * std) / n**0.5,
                _QUADRATURE,
                std / n**0.5,
                where,
            )
            for name, m, std in zip((_MOVED, _MOVE, _SQUARE), measured, stds[:3], strict=True)
        ]
        answers.append(self.rate(_RATE, first[1], truth, stds[3] / all_rows**0.5, _QUADRATURE))
        states = by_start(many[0])
        more = (1 + n / _TRUE_COPIES) ** 0.5  # the truth is simulated too
        for name, m, std in zip((_STATE, _STATE_SQUARE), (states, states**2), later_stds[:2], strict=True):
            error = more * torch.maximum(m.std(1), _LEAST * std) / n**0.5
            answers.append(Answer(name, m.mean(1), later[name], error, 1e-9, more * std / n**0.5, where))
        error = more * later_stds[2] / all_rows**0.5
        return [*answers, self.rate(_LATER_RATE, many[1], later, error, 1e-9)]

    @staticmethod
    def rate(name, measured, truth, error, tolerance) -> Answer:
        """An acceptance rate beside the truth: one in other units has its error in these."""
        scale = (measured / truth[name]).abs().clamp(min=1.0)
        return Answer(name, measured, truth[name], scale * error + (scale - 1) * tolerance, tolerance, error)

    def mistakes(self) -> list[Mistake]:
        """What becomes of the numbers by the usual mistakes."""
        e = self.step

        def formula(steps=_STEPS, stale="", again="", **parts):
            now, _ = self.after_one(_COARSE, **parts)
            return _Later(
                now, lambda: self.after_many(_WRONG_COPIES, steps=steps, stale=stale, again=again, **parts)[0]
            )

        def normal_below(value):
            return 0.5 * (1 + torch.erf(value / math.sqrt(2)))

        width = "the proposal's density has the wrong width: it is exp(−‖y − x − ε s‖²/4ε), of variance 2ε"
        no_drift = "the proposal lacks its drift ε s(x): that is a random walk"
        narrow = "the noise of the proposal is √ε z, where √(2ε) z is needed"
        rate = "the acceptance rate that you report is "
        common: list[tuple[str, str, dict[str, Any]]] = [
            (
                "no_proposal_ratio",
                "the ratio q(x | y)/q(y | x) of the proposals is missing: with a drift they do not cancel",
                {"ratio": lambda target, proposal: target},
            ),
            (
                "inverted_proposal_ratio",
                "the ratio of the proposals is upside down: q(x | y), the way back, stands above",
                {"ratio": lambda target, proposal: target - proposal},
            ),
            (
                "inverted_ratio",
                "the whole ratio is upside down: π(y) q(x | y) stands above",
                {"ratio": lambda target, proposal: -target - proposal},
            ),
            (
                "one_drift",
                "the drift of the way back is taken at x; the way back starts at y, so it is ε s(y)",
                {"points": "x"},
            ),
            (
                "no_log",
                "the uniform number is compared with the logarithm of the ratio: take its logarithm too",
                {"probability": lambda log_a: log_a.clamp(0, 1)},
            ),
            (
                "always_accepted",
                "every proposal is taken: that is Langevin dynamics without adjustment",
                {"probability": torch.ones_like},
            ),
            (
                "swapped",
                "what should be taken is refused, and the other way round",
                {"probability": lambda log_a: 1 - log_a.clamp(max=0).exp()},
            ),
            (
                "rejected_dropped",
                "a refused chain proposes until something is taken; it must stay where it is for this step",
                {"keep": "accepted"},
            ),
            ("epsilon_for_two_epsilon", narrow, {"kick": math.sqrt(e)}),
            ("no_root", "the noise lacks its root: it is 2ε z, not √(2ε) z", {"kick": 2 * e}),
            ("no_noise", "there is no noise in the proposal", {"kick": 0.0}),
            ("no_drift", no_drift, {"drift": 0.0}),
            ("drift_sign", "the proposal goes down the score, not up", {"drift": -1.0}),
            ("half_drift", "the drift is ε/2 s where the noise √(2ε) z needs ε s", {"drift": 0.5}),
            (
                "stale_log_prob",
                "the log-density of the present state is that of the start, not renewed when a chain moves",
                {"stale": "value"},
            ),
            (
                "stale_score",
                "the score of the present state is that of the start, not renewed when a chain moves",
                {"stale": "score"},
            ),
            ("same_noise", "the same noise is used in each step: draw it inside the loop", {"again": "z"}),
            ("acceptance_rate", f"{rate}the share that was refused", {"rate": lambda share, n: 1 - share}),
            ("proposal_variance", width, {"width": 2 * e}),
        ]
        rare: list[tuple[str, str, dict[str, Any]]] = [
            (
                "no_target",
                "the ratio π(y)/π(x) of the densities is missing",
                {"ratio": lambda target, proposal: proposal},
            ),
            *(
                ("proposal_variance", width, {"width": w})
                for w in (8 * e, e, 4 * e**2, 8 * e**2, 2 * math.sqrt(2 * e), 4 * math.sqrt(e))
            ),
            (
                "inverted_target",
                "the ratio of the densities is upside down: π(y) stands above",
                {"ratio": lambda target, proposal: proposal - target},
            ),
            ("norm", "the norm in the proposal's density is not squared", {"power": 0.5}),
            (
                "norm",
                "the norm in the proposal's density is not squared",
                {"power": 0.5, "width": 2 * math.sqrt(2 * e)},
            ),
            (
                "mean_dims",
                "the square in the proposal's density is averaged over dimensions, not summed",
                {"width": 8 * e},
            ),
            ("never_accepted", "no proposal is ever taken", {"probability": torch.zeros_like}),
            (
                "greedy",
                "only what raises the ratio above 1 is taken; the rest is to be taken with probability a",
                {"probability": lambda log_a: (log_a > 0).to(_DOUBLE)},
            ),
            (
                "greedy",
                "what has a ratio above ½ is taken, without a random number",
                {"probability": lambda log_a: (log_a > math.log(0.5)).to(_DOUBLE)},
            ),
            ("barker", "that is Barker's rule, a/(1 + a); Metropolis takes min(1, a)", {"probability": torch.sigmoid}),
            (
                "normal_uniform",
                "the number that decides is normal, by randn; it is uniform on [0, 1]",
                {"probability": lambda log_a: normal_below(log_a.exp())},
            ),
            (
                "normal_uniform",
                "the number that decides is normal, by randn; it is uniform on [0, 1]",
                {"probability": lambda log_a: normal_below(log_a.exp()) - 0.5},
            ),
            (
                "normal_uniform",
                "the number that decides is normal, by randn; it is uniform on [0, 1]",
                {"probability": normal_below},
            ),
            (
                "rejected_dropped",
                "a refused chain proposes until something is taken; it must stay where it is for this step",
                {"keep": "accepted", "rate": lambda share, n: 0 * share + 1},
            ),
            ("epsilon_for_two_epsilon", narrow, {"kick": math.sqrt(e), "width": 2 * e}),
            ("no_root", "the noise is ε z: the root and the 2 are missing", {"kick": e}),
            ("outer_two", "the 2 stands outside the root: 2√ε z, not √(2ε) z", {"kick": 2 * math.sqrt(e)}),
            ("no_scale", "the noise is z, without √(2ε)", {"kick": 1.0}),
            ("uniform_noise", "the noise is drawn with rand, uniform on [0, 1], not with randn", {"law": "uniform"}),
            ("no_drift", no_drift, {"drift": 0.0, "assumed": 1.0}),
            ("drift_sign", "the proposal goes down the score, not up", {"drift": -1.0, "assumed": 1.0}),
            (
                "half_step",
                "the proposal is ε/2 s + √ε z, of half the size: in the book's convention it is ε s + √(2ε) z",
                {"drift": 0.5, "kick": math.sqrt(e), "width": 2 * e},
            ),
            ("half_drift", "the drift is ε/2 s where the noise √(2ε) z needs ε s", {"drift": 0.5, "assumed": 1.0}),
            ("no_step", "the score in the proposal is not multiplied by the step", {"drift": 1 / e}),
            ("no_step", "the score in the proposal is not multiplied by the step", {"drift": 1 / e, "assumed": 1.0}),
            ("stale_score", "the score is that of the last proposal, also where it was refused", {"stale": "proposal"}),
            ("same_uniform", "the same number decides in each step: draw it inside the loop", {"again": "u"}),
            ("same_noise", "noise and decision are the same in each step: draw them inside the loop", {"again": "zu"}),
            ("one_step", "only one step is made, whatever n_steps", {"steps": 1}),
            ("step_missing", "one step too few", {"steps": _STEPS - 1}),
            ("extra_step", "one step too many", {"steps": _STEPS + 1}),
            (
                "acceptance_rate",
                f"{rate}the number of proposals taken, not divided by n_steps",
                {"rate": lambda share, n: n * share},
            ),
            ("acceptance_rate", f"{rate}in per cent", {"rate": lambda share, n: 100 * share}),
            ("acceptance_rate", f"{rate}divided by n_steps + 1, or twice", {"rate": lambda share, n: share / n}),
        ]
        pairs = [mistake for mistake in slips(formula, common) if mistake.also]
        return [mistake for mistake in slips(formula, common + rare) if not mistake.also] + pairs


def _refuse_batch_decision(run, states, x, problem, generator):
    """Refuse a decision that is made once for all chains: few together then move all or none."""
    moved = (states != x).any(1)
    if bool(moved.any()) and not bool(moved.all()):
        return
    shares = problem.after_one(_COARSE)[0][_MOVED]
    few = problem.starts[(shares - 0.5).abs().argmin()].repeat(3, 1)
    seen = torch.stack([(run(few, 1, child(generator))[0] != few).any(1).sum() for _ in range(60)])
    # Three chains that decide by themselves agree one time in four: sixty times, never.
    if set(seen.tolist()) == {0, 3}:
        raise Refusal(
            "all chains move together or none does: one number decides for the whole batch, or the ratio is summed "
            "over it; each chain has a ratio and a decision of its own",
            "batch_decision",
        )
    try:
        _refuse_coupled(run, x[:64], generator)
    except Refusal as refusal:
        # Who proposes until something is taken draws the more the more is refused; the law tells.
        if refusal.mistake == "batch_decision" or not bool(moved.all()):
            raise


def _refuse_parted_steps(x, states):
    """Refuse steps of which some coordinates are taken and others not; who proposes one at a time is not meant."""
    moved = states != x
    parted = moved.any(1) & ~moved.all(1)
    if bool(parted.any()) and bool(moved.all(1).any()):
        raise Refusal(
            f"in {int(parted.sum())} of {len(x)} chains one coordinate moved and the other stayed: a proposal is taken "
            "or refused as a whole; draw one number for each chain",
            "parted_decision",
        )


def _refuse_coupled(run, x, generator):
    """Refuse chains that move when others start elsewhere, and tell whether their proposals do or their decisions."""
    half, source = len(x) // 2, child(generator)
    try:
        refuse_coupled_rows(lambda x, source: run(x, 2, source)[0], x, generator)
    except Refusal as refusal:
        state = torch.random.get_rng_state()
        ends = []
        for starts in (x, torch.cat([x[:half], 3 * x[half:]])):
            torch.random.set_rng_state(state)
            ends.append(run(starts, 1, source.clone_state())[0][:half])
        moved = [(end != x[:half]).any(1) for end in ends]
        both = moved[0] & moved[1]
        if not torch.equal(*moved) and torch.equal(ends[0][both], ends[1][both]):
            raise Refusal(
                "whether a chain moves depends on where others of its batch start: the ratio is summed or averaged "
                "over the batch; each chain has a ratio and a decision of its own",
                "batch_decision",
            ) from refusal
        raise


def _refuse_shared_steps(group, x, states, other):
    """Refuse steps that chains, or calls with different seeds, share."""
    move, again = states - x, other - x
    moved = (move != 0).any(1)
    both = moved & (again != 0).any(1)
    went = [rows for rows in (both & (group == k) for k in range(_STARTS)) if rows.sum() > 1]
    if not went:
        return
    alike = all(bool(move[rows].std(0).max() < 1e-9) for rows in went)
    repeated = torch.equal(move[both], again[both])
    if alike and not repeated:
        raise Refusal(
            "all chains with the same start make the same step: draw the noise in the shape of x", "shared_noise"
        )
    if repeated and not alike:
        raise Refusal(
            "two calls with different seeds propose the same steps: a seed is set inside your function, so draw from "
            "the generator that you are given",
            "fixed_seed",
        )


def _refuse_dependent(problem, group, x, states):
    """Refuse noise that chains or coordinates share, where the steps are otherwise right."""
    moved = (states != x).any(1)
    went = [rows for rows in (moved & (group == k) for k in range(_STARTS)) if rows.sum() > 1]
    if not went:
        return
    noise = (states - x - problem.step * problem.score(x)) / math.sqrt(2 * problem.step)
    if bool((noise[moved, 0] - noise[moved, 1]).abs().max() < 1e-6):
        raise Refusal("all coordinates of a chain get the same noise: draw it in the shape of x", "shared_noise")
    for rows in went:
        noise[rows] = (noise[rows] - noise[rows].mean(0)) / noise[rows].std(0).clamp(min=1e-12)
    n = len(x)
    for lag in (1, 2, n // 4, n // 2):
        both = moved[lag:] & moved[:-lag]
        pairs = noise[lag:][both].flatten(), noise[:-lag][both].flatten()
        if len(pairs[0]) > 50 and torch.corrcoef(torch.stack(pairs))[0, 1].abs() > 6.5 / len(pairs[0]) ** 0.5:
            raise Refusal(
                f"chains 0 and {lag} of a batch get the same noise, and so do all that lie {lag} apart: draw it in the "
                "shape of x",
                "shared_noise",
            )


def _refuse_shared_decisions(run, problem, generator):
    """Refuse one number that decides for all chains: the share that moves then changes from call to call."""
    share = problem.after_one(_COARSE)[0][_MOVED]
    x = problem.starts[(share - 0.5).abs().argmin()].repeat(_FEW, 1)
    states = [run(x, 1, child(generator))[0] for _ in range(_CALLS)]
    moved = torch.stack([(state != x).any(1).to(_DOUBLE) for state in states])
    mean = moved.mean()
    spreads = [(state - x)[went > 0].std(0).max() for state, went in zip(states, moved, strict=True) if went.sum() > 1]
    same_noise = bool(spreads) and bool((torch.stack(spreads) < 1e-9).all())
    if 0 < mean < 1 and not same_noise and moved.mean(1).var() > _SHARED * mean * (1 - mean) / _FEW:
        raise Refusal(
            f"of {_FEW} chains with the same start, {moved.sum(1).min():.0f} moved in one call and "
            f"{moved.sum(1).max():.0f} in another, more apart than chance has it: one number decides for all chains; "
            "draw one for each",
            "shared_uniform",
        )
