r"""One training loop for every chapter, which can be stopped and resumed without changing a bit.

The weights follow Adam on minibatches; what you keep is their moving average,

.. math:: \bar\theta_{n} = d_n \bar\theta_{n-1} + (1 - d_n)\,\theta_n, \qquad
          d_n = \min\Big(d,\ \frac{n}{n + 9}\Big), \qquad \bar\theta_1 = \theta_1,

whose memory grows with the run (about a tenth of the steps so far) until it reaches the :math:`1/(1-d)` steps that the
decay :math:`d` asks for. A short run is thus not dominated by the weights it began with.

All randomness, the order of the data and whatever the loss draws, comes from one generator. Its state is in the
checkpoint, beside the weights, the moments of Adam, the place in the data and what else the modules keep, so that a run
of 20 steps resumed for 20 more equals one of 40 bit for bit on a CPU (with the same number of threads). What layers
draw from PyTorch's global generators, as dropout does, follows from it too, and those are left as they were.

Weights, their average and the moments are kept in single precision at least: a model in half precision gets what they
round to, since a step of 0.001 is lost on a half-precision weight of 1. Buffers are averaged with the weights, and the
statistics of a BatchNorm are taken anew under the averaged ones at the end.

Under ``torchrun`` the processes share each batch of :math:`N` rows, and PyTorch's ``DistributedDataParallel`` sums
their gradients while it goes backwards,

.. math:: \nabla L = \sum_r \frac{n_r}{N}\, \nabla \bar\ell_r,

the gradient of one process with all the rows, however they divide (:mod:`scorebook.lab.distributed`). It is not the
model that is wrapped but the whole loss with the model inside. So a loss may differentiate the network, call it several
times or ask it for its ``weight``, as in one process, and all that DDP sees is one backward pass at the end.
"""

import copy
import hashlib
import math
import numbers
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy
from tqdm import tqdm

from scorebook.lab.arguments import one_of, one_read, positive, positive_integer
from scorebook.lab.batches import GlobalDraws, batch_size_of, rows_of
from scorebook.lab.checkpoints import HeldInterrupt, read, readable, usable_path, write
from scorebook.lab.devices import is_watched
from scorebook.lab.distributed import (
    alike,
    any_rank,
    common_state,
    copy_from_first,
    from_first,
    join,
    n_ranks,
    own_generator,
    rank,
    share,
    summed,
)
from scorebook.lab.fingerprints import difference
from scorebook.lab.losses import Objective, check_fits, in_place, scalar, takes_generator
from scorebook.lab.resumption import FORMAT, PARTS, Description, of_today
from scorebook.lab.types import Integer, Loss, Number
from scorebook.lab.weights import Average, Keepsakes, Precise, check_extra_states, check_weights, load_weights

__all__ = ["History", "fit", "held_out_loss"]

_Changeable: TypeAlias = Literal[
    "batch_size", "lr", "ema_decay", "clip", "schedule", "autocast", "data", "loss", "model"
]
_MAY_CHANGE = get_args(_Changeable)
_MOST_BATCHES, _FEWEST_BATCHES = 100, 10
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class History:
    """What happened during training.

    Attributes:
        loss: loss of each step, resumed steps included, shape ``(n_steps,)``, on the CPU.
        seconds: wall time of all steps, those before a resumption included.
        stopped_early: whether ``max_seconds`` ended the run before its last step.
    """

    loss: Tensor
    seconds: float
    stopped_early: bool = False

    @property
    def n_steps(self) -> int:
        """Number of steps taken."""
        return len(self.loss)

    def smoothed(self, window: Integer = 50) -> Tensor:
        """Mean of the last ``window`` losses at each step (of as many as there are, at the first ones)."""
        window = positive_integer("window", window)
        losses = self.loss.double()
        total = torch.cat([losses.new_zeros(1), losses.cumsum(0)])
        end = torch.arange(1, len(total), device=total.device)
        start = (end - window).clamp(min=0)
        return ((total[end] - total[start]) / (end - start)).to(self.loss.dtype)


@torch.inference_mode(False)
@torch.enable_grad()
def fit(
    model: nn.Module,
    loss: Loss,
    data: Any,
    *,
    n_steps: Integer,
    batch_size: Integer | None = None,
    lr: Number = 1e-3,
    ema_decay: Number | None = 0.999,
    generator: torch.Generator | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: Integer = 500,
    resume: bool = True,
    changed: _Changeable | Iterable[_Changeable] = (),
    progress: bool = True,
    clip: Number | None = 1.0,
    schedule: Literal["constant", "cosine"] = "constant",
    max_seconds: Number | None = None,
    autocast: torch.dtype | None = None,
) -> History:
    """Train ``model`` in place; afterwards it holds the averaged weights and is in evaluation mode.

    Each epoch takes the rows of ``data`` in a new random order; its last batch may be smaller. Batches are moved to the
    device of the model one by one, and the model is moved nowhere.

    Any module can be trained: one with dropout, tied or sparse weights, several precisions, buffers that grow, hooks,
    an extra state. Submodules that are in evaluation mode within a model in training mode, such as a frozen BatchNorm,
    stay so; a model that is in evaluation mode as a whole trains as a whole, or as its checkpoint says. A BatchNorm
    needs two rows, in each process: where fewer would be left over at the end of an epoch they join the batch before.
    At the end it sees one epoch more, a hundred batches at most, for its statistics under the averaged weights.

    It does the same within ``torch.inference_mode()``, ``torch.no_grad()`` and under any default type or device. Within
    ``torch.autocast`` it trains in that precision, loss and all; the weights and their average stay in their own. The
    argument ``autocast`` is the better way: it lowers the precision of the network alone.

    A script that calls it runs unchanged on several GPUs or machines, as ``torchrun --nproc-per-node 4 train.py``, if
    it puts the model on :func:`~scorebook.lab.devices.device` and gives the same arguments in each process. The
    processes start from the weights and the generator of the first, share the ``batch_size`` rows of each step, and
    hold the same weights after it; the first alone shows the bar and touches the checkpoint. The loss must be a mean
    over its rows. One that draws nothing takes the course that it takes in one process, to rounding; one that draws
    gets a generator of its own rank, so that no two rows share their noise, and takes that course in distribution. A
    checkpoint can be resumed on any number of processes, on the same number exactly.

    Args:
        model: module with at least one parameter that is trained.
        loss: callable ``(model, *batch, generator=g) -> scalar tensor``, such as a ``functools.partial``, of which any
            arguments may be bound: ``partial(score_matching_loss, sde=process)``. It should draw from ``g``. A loss
            without an argument ``generator`` is called without it.
        data: floating-point tensor ``(N, *event)`` or NumPy array; or several with ``N`` rows each, a tuple for a loss
            ``(model, x, labels)`` and a dictionary for one that is called as ``(model, x=..., labels=...)``, the points
            first, each of the others a tensor or a list, tuple or dictionary of tensors; or a map-style
            ``torch.utils.data.Dataset``, whose items are collated to one of these, or a ``DataLoader`` of it. Floating
            points come to the loss in the type of the weights. See :mod:`scorebook.lab.batches`.
        n_steps: number of optimiser steps in all, those of a resumed checkpoint included.
        batch_size: rows per step, at most; all of them if there are fewer. ``None`` takes that of a ``DataLoader``, or
            128.
        lr: step size of Adam.
        ema_decay: decay of the moving average, in (0, 1); ``None`` keeps the last weights instead.
        generator: source of all randomness; ``None`` makes one from a seed drawn from PyTorch's global generator.
        checkpoint: path of a file that holds the whole state, replaced atomically; ``None`` for none.
        checkpoint_every: number of steps between two writings; it is also written at the end and on Ctrl-C.
        resume: go on from ``checkpoint`` if it exists. ``False`` begins anew and replaces it.
        changed: names of what may differ on purpose from the run in ``checkpoint``: ``"lr"``, ``"batch_size"``,
            ``"clip"``, ``"ema_decay"``, ``"schedule"``, ``"autocast"``, ``"data"``, ``"loss"``, ``"model"`` (its
            attributes, the modes of its modules, which weights are trained; weights of other shapes never fit). The
            run goes on with the new from its next step, with other data from a new epoch.
        progress: show a bar while a person is watching; a page that is built or a log shows none.
        clip: greatest norm of the gradient, all parameters together; ``None`` for no limit.
        schedule: ``"constant"``, or ``"cosine"``, which lowers the step size to 0 along half a cosine over
            ``n_steps``. Such a run can be resumed only with the same ``n_steps``, or with ``changed="schedule"``: then
            a half cosine from ``lr`` to 0 begins where the run stands and ends at the new ``n_steps``. So training goes
            on for longer than first asked, or a constant run comes to its end.
        max_seconds: stop after the step that exceeds this wall time of this call. What you get then depends on the
            speed of the machine, so do not combine it with a claim that must repeat exactly.
        autocast: ``torch.bfloat16`` for mixed precision: in each call of ``model`` matrices are multiplied and
            convolved in it, under :class:`torch.autocast`, and what the call returns comes to the loss as float32. The
            loss, the weights, Adam's moments and the moving average stay as they are without it. It pays on GPUs with
            units for bfloat16 (Ampere and later). ``float16`` is refused: gradients below 6e-8 would be lost, unless
            they were rescaled.

    Returns:
        The :class:`History` of the run.

    Raises:
        ValueError: if an argument, the data, or the value of the loss is not as described; if the model has a lazy
            layer without a shape, or was made within ``torch.inference_mode()``; if ``checkpoint`` cannot be read, or
            belongs to other data, another loss, another model or other settings that ``changed`` does not name, or
            holds more than ``n_steps`` steps. The file is then left as it is. Of a model, classes and attributes are
            compared beside the weights; of a loss its code, and what it encloses or names; of both what does not move
            in the course of the run. Under ``torchrun``, if a setting or the number of rows differs between processes.
        RuntimeError: if the loss or its gradient is NaN or infinite in any process. The last checkpoint stays as it is.
        OSError: if the checkpoint cannot be written, for want of room or of its folder. The one before stays whole.
        KeyboardInterrupt: on Ctrl-C, after the step under way, once the checkpoint is written.

    Warns:
        UserWarning: if the checkpoint is of the first version, which does not say all that is compared today.

    Whatever is raised after the first step, the model then holds the average over the whole steps before.

    Whatever ends the process, SIGTERM and SIGKILL, a power cut, a notebook that was disconnected, costs the steps since
    the last writing and no more: the same call goes on from there to the same bits. Bytes that change on the disk are
    noticed, and such a file is refused. Of two runs that write to one path at once the later writing wins, with a whole
    file; give each run a path of its own.
    """
    for name, count in {"n_steps": n_steps, "batch_size": 1 if batch_size is None else batch_size}.items():
        positive_integer(name, count)
    positive_integer("checkpoint_every", checkpoint_every)
    positive("lr", lr)
    for name, bound in {"clip": clip, "max_seconds": max_seconds}.items():
        if bound is not None:
            positive(name, bound)
    if ema_decay is not None and not (isinstance(ema_decay, numbers.Real) and 0 < ema_decay < 1):
        raise ValueError(f"ema_decay must lie in (0, 1) or be None, got {ema_decay!r}")
    one_of("schedule", schedule, ("constant", "cosine"))
    _check_autocast(autocast)
    changed = (changed,) if isinstance(changed, str) else tuple(changed)
    for name in changed:
        one_of("changed", name, _MAY_CHANGE)
    generator = _checked_generator(generator)
    parameters = _trained_parameters(model)
    batch_size = batch_size_of(data, batch_size)
    data = rows_of(data, _dtypes(parameters))

    n_steps = int(n_steps)
    settings = {
        "rows": len(data),
        "batch_size": int(batch_size),
        "lr": float(lr),
        "ema_decay": None if ema_decay is None else float(ema_decay),
        "clip": None if clip is None else float(clip),
        "schedule": schedule if schedule == "constant" else f"{schedule} over {n_steps} steps",
        "autocast": None if autocast is None else str(autocast).removeprefix("torch."),
    }
    join(parameters[0].device)
    alike(
        **settings,
        n_steps=n_steps,
        checkpoint="none" if checkpoint is None else "a path",
        checkpoint_every=checkpoint_every,
        resume=resume,
        changed=changed,
        max_seconds=max_seconds,
    )
    common_state(generator)
    run = _Run(model, loss, data, generator, settings, n_steps)
    if checkpoint is not None:
        try:
            checkpoint, state = from_first(run.found, checkpoint, resume, changed)
        except BaseException:
            run.refuse()
            raise
        if state is not None:
            run.restore(state)

    began = time.perf_counter()
    earlier = run.seconds
    out_of_time = complete = False
    shown = progress and rank() == 0 and is_watched()
    bar = tqdm(total=n_steps, initial=run.step, leave=False, mininterval=0.2, disable=not shown)
    try:
        with bar, HeldInterrupt() as interrupt:
            while run.step < n_steps and not out_of_time:
                run.advance()
                run.seconds = earlier + time.perf_counter() - began
                if max_seconds is not None:
                    out_of_time = any_rank(run.seconds - earlier > float(max_seconds), run.device)
                last = run.step == n_steps or out_of_time
                if last:
                    run.agree()
                if checkpoint is not None and (last or run.step % checkpoint_every == 0):
                    from_first(run.save, checkpoint)
                if not bar.disable:
                    bar.set_postfix_str(f"loss {run.losses[-1]:.4g}", refresh=False)
                    bar.update()
                if any_rank(interrupt.came, run.device):
                    raise KeyboardInterrupt
        complete = True
    except KeyboardInterrupt:
        if checkpoint is not None and rank() == 0 and run.is_whole and run.step > 0:
            run.save(checkpoint)
        raise
    finally:
        run.finish(complete=complete)
    losses = torch.tensor(run.losses, device="cpu")
    return History(losses, run.seconds, stopped_early=run.step < n_steps)


@torch.inference_mode(False)
@torch.enable_grad()
def held_out_loss(
    model: nn.Module,
    loss: Loss,
    data: Any,
    *,
    batch_size: Integer | None = None,
    generator: torch.Generator | None = None,
) -> tuple[float, float]:
    """Mean of a loss over data, as a rule such as were not trained on, and its standard error.

    The model is asked in evaluation mode and is as before afterwards. To compare models, or one in the course of its
    training, give a generator of the same seed each time: then all meet the same times and the same noise.

    Args:
        model: a trained module.
        loss: callable as for :func:`fit`, a mean over its rows.
        data: in any form that :func:`fit` takes.
        batch_size: most rows at a time; ``None`` takes that of a ``DataLoader``, or 128. The standard error comes from
            the spread between batches: of few rows ten are made, or one of each row.
        generator: source of all randomness; ``None`` makes one from a seed drawn from PyTorch's global generator.

    Returns:
        The mean over all rows and its standard error. The mean is the same for any number of processes under
        ``torchrun``, up to what the loss draws, and is given to all of them.

    Raises:
        ValueError: as :func:`fit`, for ``model``, ``data``, ``batch_size``, ``generator`` or the value of the loss; if
            there is a single row.
    """
    parameters = [*model.parameters()] if isinstance(model, nn.Module) else []
    if not parameters:
        raise ValueError(f"model must be a torch.nn.Module with parameters, got {type(model).__name__}")
    size = batch_size_of(data, batch_size)
    positive_integer("batch_size", size)
    rows = rows_of(data, _dtypes(parameters))
    if len(rows) < 2:
        raise ValueError("data must have at least two rows, or their mean has no standard error, got 1")
    generator = _checked_generator(generator)
    device = parameters[0].device
    join(device)
    alike(rows=len(rows), batch_size=size)
    size = min(size, -(-len(rows) // _FEWEST_BATCHES))
    common_state(generator)
    modes = [(module, module.training) for module in model.modules()]
    dtype = torch.float32 if device.type == "mps" else torch.float64
    draws = GlobalDraws({parameter.device for parameter in parameters}, generator)
    losses, portions = [], []
    model.eval()
    try:
        for number, batch in enumerate(torch.arange(len(rows), device="cpu").split(size)):
            own = share(batch)
            draws.seed(number * n_ranks() + rank())
            value = torch.zeros((), dtype=dtype, device=device)  # one type on all ranks, also where one has no rows
            keywords = {"generator": own_generator(generator)} if takes_generator(loss) else {}
            if len(own):
                positional, named = rows.take(own, device)
                value = scalar(in_place(loss)(model, *positional, **named, **keywords)).detach().to(dtype)
            losses.append(summed(value * (len(own) / len(batch))))
            portions.append(len(batch) / len(rows))
    finally:
        draws.put_back()
        for module, mode in modes:
            module.training = mode
    values, weights = torch.stack(losses).double().cpu(), torch.tensor(portions, dtype=torch.float64, device="cpu")
    mean = (weights * values).sum()
    n = len(values)
    return mean.item(), math.sqrt((weights**2 * (values - mean) ** 2).sum() * n / (n - 1))


class _Run:
    """The whole state of a training run: weights, their average, Adam, the generator and the place in the data.

    The generator's state, the place in the data and what the modules keep beside their weights are recorded at the end
    of each step, together: whatever ends a step half-way, what is recorded belongs to the weights.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        data: Any,
        generator: torch.Generator,
        settings: dict[str, Any],
        n_steps: int,
    ):
        self.model, self.loss, self.data, self.generator = model, loss, data, generator
        self.settings, self.n_steps = settings, n_steps
        self.parameters = _trained_parameters(model)
        self.trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        self.device = self.parameters[0].device
        self.modes, self.says_modes = [(module, module.training) for module in model.modules()], model.training
        self.frozen = _set_to_training(model)
        self.objective = Objective(model, loss, None if settings["autocast"] is None else torch.bfloat16)
        self.shared_objective: nn.Module = self.objective
        if n_ranks() > 1:  # from here on every rank has the weights of the first
            self.shared_objective = DistributedDataParallel(self.objective, find_unused_parameters=True)
        self.precise = Precise(self.parameters)
        # The fused one takes a sixth of the time of the plain one on a CPU.
        fused = self.device.type in ("cpu", "cuda") and all(p.is_floating_point() for p in self.parameters)
        self.optimizer = torch.optim.Adam(self.precise.parameters, lr=settings["lr"], fused=fused)
        self.average = None if settings["ema_decay"] is None else Average(model, self.precise, settings["ema_decay"])
        self.takes_generator = takes_generator(loss)
        self.step, self.seconds = 0, 0.0
        self.losses: list[float] = []
        self.schedule_begins = 0
        self.order, self.position = torch.empty(0, dtype=torch.long, device="cpu"), 0
        self.global_draws = GlobalDraws({parameter.device for parameter in self.parameters}, generator)
        self.keepsakes = Keepsakes(model)
        self.generator_state = generator.get_state()
        self.is_whole = True

    def found(
        self, checkpoint: str | os.PathLike[str], resume: bool, changed: tuple[str, ...]
    ) -> tuple[Path, dict[str, Any] | None]:
        """The path where to write, and the state from which to go on, or ``None``. Nothing is taken over yet."""
        path = usable_path(checkpoint)
        self.description = Description(self.model, self.loss, self.data)
        state = read(path, PARTS) if path.exists() else None
        if state is None or not resume:
            return path, None
        state = of_today(state, path)
        self._compare(state, path, changed)
        if state["settings"]["rows"] != self.settings["rows"] or self.description.has_other_data(state["description"]):
            state |= {"order": self.order, "position": 0}
        self.description.go_on_from(state["description"])
        return path, state

    def refuse(self) -> None:
        """Leave the model as it came."""
        for module, mode in self.modes:
            module.training = mode

    def advance(self) -> None:
        """Take one step, or raise and leave the weights as they are."""
        torch.clear_autocast_cache()  # an autocast around fit would go on with the weights that it has cast before
        self.global_draws.seed(self._seed(self.step))
        order, position = self.order, self.position
        if position >= len(order):
            order = torch.randperm(len(self.data), generator=self.generator, device=self.generator.device)
            position = 0
        rows = self._next_of(order[position:])

        self.precise.forget_gradients()
        with one_read() as numbers_read:
            loss = self._backward(rows)
            gradients = self.precise.gradients()
            norm = nn.utils.get_total_norm(gradients)
            numbers_read += [loss, norm]
        if not loss.is_meta:
            self._stop_unless_finite(*numbers_read)
        nn.utils.clip_grads_with_norm_(self.precise.parameters, self.settings["clip"] or math.inf, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings["lr"] * self._schedule()

        self.is_whole = False
        with torch.device("cpu"):  # where Adam counts its steps, whatever device is the default
            self.optimizer.step()
        self.precise.round()
        if self.average is not None:
            self.average.update(self.step + 1)
        self.losses.append(numbers_read[0])
        self.order, self.position = order, position + len(rows)
        self.generator_state = self.generator.get_state()
        self.keepsakes.record()
        self.step += 1
        self.is_whole = True

    def _seed(self, step: int) -> int:
        """What the global generators begin a step with."""
        state = self.generator_state.numpy().tobytes()
        return int.from_bytes(hashlib.blake2b(state + f"{step} {rank()}".encode(), digest_size=7).digest())

    def _next_of(self, rest: Tensor) -> Tensor:
        """The next rows of an epoch. Too few for statistics of a batch are not left over: they join those before."""
        size = self.settings["batch_size"]
        fewest = 2 * n_ranks() if any(map(_takes_statistics, self.model.modules())) else 1
        return rest if len(rest) < size + fewest else rest[:size]

    def _backward(self, rows: Tensor) -> Tensor:
        """Leave the gradient of the loss over all these rows in the parameters of every rank; return that loss."""
        own = share(rows)
        portion = len(own) / len(rows)
        if len(own) == 0:
            own = rows[:1]  # DDP needs every rank to go backwards: this one does so in vain, with a row that counts 0
        loss = self._loss(self.shared_objective, own, self.generator)
        if n_ranks() == 1:
            loss.backward()
            return loss
        (loss * (portion * n_ranks())).backward()  # of these DDP takes the mean
        return summed(loss.detach() * portion)

    def _loss(self, objective: nn.Module, rows: Tensor, generator: torch.Generator) -> Tensor:
        batch, named = self.data.take(rows, self.device)
        if self.takes_generator:
            named = named | {"generator": own_generator(generator)}
        try:
            return objective(*batch, **named)
        except TypeError as error:
            check_fits(self.loss, self.model, batch, named, error)
            raise
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ValueError(
                "batch_size must give a BatchNorm in training mode at least two rows, in each process, got "
                f"{len(rows)}, of {len(self.data)} rows by {self.settings['batch_size']}. Take a larger one, or put "
                "the layer into evaluation mode before fit, which leaves it there"
            ) from error

    def agree(self) -> None:
        """Give all ranks what the first has gathered in buffers, as DDP does before each step."""
        for buffer in self.model.buffers():
            copy_from_first(buffer)
        if self.average is not None:
            for mean in self.average.of_buffers():
                copy_from_first(mean)
        self.keepsakes.record()

    def finish(self, *, complete: bool) -> None:
        """Give the model its averaged weights, no gradients, and the mode of evaluation."""
        try:
            self.keepsakes.put_back()
            if self.average is not None and self.step > 0:
                self.average.hand_over()
                if complete:
                    self._retake_statistics()
        finally:
            self.precise.forget_gradients()
            del self.objective, self.shared_objective
            self.model.eval()
            self.global_draws.put_back()
            torch.clear_autocast_cache()

    def _retake_statistics(self) -> None:
        """Take the statistics of each BatchNorm anew, under the averaged weights; what else the calls move, goes back.

        They are the means over the batches of one epoch, of a hundred batches at most.
        """
        all_norms: list[Any] = [module for module in self.model.modules() if _takes_statistics(module)]
        norms = [norm for norm in all_norms if norm.running_mean is not None]
        if not norms:
            return
        before, momenta = Keepsakes(self.model), [norm.momentum for norm in norms]
        extra_states = [(m, copy.deepcopy(m.get_extra_state())) for m in self.model.modules() if _has_extra_state(m)]
        generator = torch.Generator(self.generator.device)
        generator.set_state(self.generator_state)
        rest = torch.randperm(len(self.data), generator=generator, device=generator.device)
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        try:
            for number in range(_MOST_BATCHES):
                torch.clear_autocast_cache()
                self.global_draws.seed(self._seed(self.step + number))
                rows = self._next_of(rest)
                self._loss(self.objective, share(rows), generator)
                rest = rest[len(rows) :]
                if len(rest) == 0:
                    break
            taken = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
        finally:
            before.put_back()
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
            for module, state in extra_states:
                module.set_extra_state(state)
        with torch.no_grad():
            for norm, statistics in zip(norms, taken, strict=True):
                for buffer, value in zip((norm.running_mean, norm.running_var), statistics, strict=True):
                    buffer.copy_(value)
                    copy_from_first(buffer)

    def save(self, path: Path) -> None:
        """Write the state after the last whole step."""
        self.keepsakes.put_back()
        weights = self.model.state_dict()
        for name, value in weights.items():
            if not isinstance(value, Tensor):
                readable(f"model: its extra state {name!r}", value)
        state = {
            "format": FORMAT,
            "settings": self.settings,
            "description": self.description.constant(),
            "step": self.step,
            "seconds": self.seconds,
            "losses": torch.tensor(self.losses, dtype=torch.float64, device="cpu"),
            "schedule_begins": self.schedule_begins,
            "model": weights,
            "precise": self.precise.state(),
            "average": None if self.average is None else self.average.means,
            "keepsakes": self.keepsakes.state(weights),
            "frozen": self.frozen,
            "trained": self.trained,
            "optimizer": self.optimizer.state_dict(),
            "order": self.order,
            "position": self.position,
            "generator": self.generator_state,
            "generator_device": self.generator.device.type,
        }
        write(state, path)

    def _compare(self, state: dict[str, Any], path: Path, changed: tuple[str, ...]) -> None:
        """Raise a ``ValueError`` if a state that was read belongs to another run."""
        check_weights(state, self.model, path)
        check_extra_states(state["model"], self.model, path)
        for name, value in self.settings.items():
            allowed = "data" if name == "rows" else name
            if (written := state["settings"].get(name)) != value and allowed not in changed:
                raise ValueError(
                    f"checkpoint {path} was written with {name}={written!r}, not {value!r}; take the same, say "
                    f"changed=[{allowed!r}] to go on with the new, or take another path, or resume=False to replace it"
                )
        n_trained, n_written = len(self.trained), len(state["optimizer"]["param_groups"][0]["params"])
        if state["trained"] is None and n_written != n_trained:
            raise ValueError(
                f"checkpoint {path} belongs to another model (it trained {n_written} parameters, not {n_trained}); "
                "it is left as it is"
            )
        if state["generator_device"] != self.generator.device.type:
            raise ValueError(
                f"checkpoint {path} was written with a generator on {state['generator_device']}, "
                f"got one on {self.generator.device.type}"
            )
        if state["step"] > self.n_steps:
            raise ValueError(f"n_steps must be at least the {state['step']} steps in {path}, got {self.n_steps}")
        for part, lines in state["description"].items():
            if part not in changed and (differing := difference(lines, self.description.lines[part])):
                raise ValueError(
                    f"checkpoint {path} was written for another {part} ({differing}); take the same, say "
                    f"changed=[{part!r}] to go on with the new, or take another path, or resume=False to replace it"
                )
        if self.says_modes and "model" not in changed and state["frozen"] not in (None, self.frozen):
            raise ValueError(
                f"checkpoint {path} was written with these modules in evaluation mode: {state['frozen']}, not "
                f"{self.frozen}; take the same, say changed=['model'] to go on with the new, or take another path, or "
                "resume=False to replace it"
            )

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a state that was read and compared."""
        load_weights(state["model"], self.model)
        trained = self.trained if state["trained"] is None else state["trained"]
        precise = dict(zip(trained, state["precise"], strict=False))
        self.precise.restore([precise.get(name) for name in self.trained])
        moments = {trained[number]: of_one for number, of_one in state["optimizer"]["state"].items()}
        moments = {number: moments[name] for number, name in enumerate(self.trained) if name in moments}
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
        if self.average is not None:
            self.average.restore(state["average"] or {})
        self.keepsakes.restore(state["keepsakes"])
        if not self.says_modes and state["frozen"] is not None:
            self.frozen = state["frozen"]
            for name, module in self.model.named_modules():
                module.training = name not in self.frozen
        self.step, self.seconds, self.losses = state["step"], state["seconds"], state["losses"].tolist()
        same_schedule = state["settings"]["schedule"] == self.settings["schedule"]
        self.schedule_begins = state["schedule_begins"] if same_schedule else self.step
        self.order, self.position = state["order"].to(self.generator.device), state["position"]
        self.generator.set_state(state["generator"])
        self.generator_state = state["generator"]

    def _schedule(self) -> float:
        if self.settings["schedule"] == "constant":
            return 1.0
        done, steps = self.step - self.schedule_begins, self.n_steps - self.schedule_begins
        return 0.5 * (1 + math.cos(math.pi * done / steps))

    def _stop_unless_finite(self, loss: Tensor, norm: float) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        what = "loss" if not math.isfinite(loss) else "gradient of the loss"
        last = f"last good loss {self.losses[-1]:.4g} at step {self.step}" if self.losses else "no step was good"
        raise RuntimeError(
            f"the {what} is not finite at step {self.step + 1} ({last}; the model is left as it was before). "
            f"Try a smaller lr than {self.settings['lr']:g}, data of about unit scale, or times and noise scales "
            "further from zero."
        )


def _dtypes(parameters: list[nn.Parameter]) -> list[torch.dtype]:
    return [*dict.fromkeys(parameter.dtype for parameter in parameters)]


def _checked_generator(generator: torch.Generator | None) -> torch.Generator:
    if generator is None:
        return torch.Generator().manual_seed(int(torch.randint(2**62, (), device="cpu")))
    if not isinstance(generator, torch.Generator):
        raise ValueError(f"generator must be a torch.Generator or None, got {generator!r}")
    return generator


def _check_autocast(dtype: Any) -> None:
    if dtype is torch.float16:
        raise ValueError(
            "autocast must be torch.bfloat16 or None, got torch.float16, in which gradients below 6e-8 are lost unless "
            "they are rescaled; bfloat16 has the range of float32"
        )
    if dtype is not None and dtype is not torch.bfloat16:
        raise ValueError(f"autocast must be torch.bfloat16 or None, got {dtype!r}")


def _trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise ValueError(
                f"model has a lazy layer, whose {name!r} has no shape yet: call the model on a batch before fit"
            )
        if tensor.is_inference():
            raise ValueError(
                f"model holds {name!r}, made within torch.inference_mode(), which cannot be trained: make the model "
                "outside, or train a copy.deepcopy(model) that is made outside"
            )
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("model must have at least one parameter that requires a gradient, got none")
    return parameters


def _takes_statistics(module: nn.Module) -> bool:
    return module.training and isinstance(module, _BATCH_NORMS)


def _set_to_training(model: nn.Module) -> list[str]:
    """Set the model to training and return the names of the modules that are not.

    Those in evaluation mode within a model in training mode stay there. A model that is in evaluation mode as a whole,
    as ``fit`` leaves it, says nothing about its parts.
    """
    frozen = [module for module in model.modules() if not module.training] if model.training else []
    model.train()  # which a module may answer in its own way
    for module in frozen:
        module.training = False
    return [name for name, module in model.named_modules() if not module.training]


def _has_extra_state(module: nn.Module) -> bool:
    return type(module).get_extra_state is not nn.Module.get_extra_state
