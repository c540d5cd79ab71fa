r"""One training loop for every chapter, which can be stopped and resumed without changing a bit.

The weights follow Adam on minibatches; what you keep is their moving average,

.. math:: \bar\theta_{n} = d_n \bar\theta_{n-1} + (1 - d_n)\,\theta_n, \qquad
          d_n = \min\Big(d,\ \frac{n}{n + 9}\Big), \qquad \bar\theta_1 = \theta_1,

whose memory grows with the run (about a tenth of the steps so far) until it reaches the :math:`1/(1-d)` steps that the
decay :math:`d` asks for. A short run is thus not dominated by the weights it began with.

All randomness, the order of the data and whatever the loss draws, comes from one generator. Its state is in the
checkpoint, beside the weights, the moments of Adam and the place in the data, so that a run of 20 steps resumed for 20
more equals one of 40 bit for bit on a CPU (with the same number of threads).

Under ``torchrun`` the processes share each batch of :math:`N` rows, and PyTorch's ``DistributedDataParallel`` sums
their gradients while it goes backwards,

.. math:: \nabla L = \sum_r \frac{n_r}{N}\, \nabla \bar\ell_r,

the gradient of one process with all the rows, however they divide (:mod:`scorebook.lab.distributed`). It is not the
model that is wrapped but the whole loss with the model inside. So a loss may differentiate the network, call it several
times or ask it for its ``weight``, as in one process, and all that DDP sees is one backward pass at the end.
"""

import math
import numbers
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from glob import escape
from inspect import Parameter, signature
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from scorebook.lab.arguments import finite, one_of, positive, positive_integer
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

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["History", "fit"]

_FORMAT = "scorebook.lab.training, version 1"


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

    def smoothed(self, window: int = 50) -> Tensor:
        """Mean of the last ``window`` losses at each step (of as many as there are, at the first ones)."""
        positive_integer("window", window)
        total = torch.cat([torch.zeros(1, dtype=torch.float64), self.loss.double().cumsum(0)])
        end = torch.arange(1, len(total))
        start = (end - window).clamp(min=0)
        return ((total[end] - total[start]) / (end - start)).to(self.loss.dtype)


def fit(
    model: nn.Module,
    loss,
    data,
    *,
    n_steps,
    batch_size=128,
    lr=1e-3,
    ema_decay=0.999,
    generator=None,
    checkpoint=None,
    checkpoint_every=500,
    resume=True,
    progress=True,
    clip=1.0,
    schedule="constant",
    max_seconds=None,
) -> History:
    """Train ``model`` in place; afterwards it holds the averaged weights and is in evaluation mode.

    Each epoch takes the rows of ``data`` in a new random order; its last batch may be smaller. Batches are moved to the
    device of the model one by one, and the model is moved nowhere.

    A script that calls it runs unchanged on several GPUs or machines, as ``torchrun --nproc-per-node 4 train.py``, if
    it puts the model on :func:`~scorebook.lab.devices.device` and gives the same arguments in each process. The
    processes start from the weights and the generator of the first, share the ``batch_size`` rows of each step, and
    hold the same weights after it; the first alone shows the bar and touches the checkpoint. The loss must be a mean
    over its rows. One that draws nothing takes the course that it takes in one process, to rounding; one that draws
    gets a generator of its own rank, so that no two rows share their noise, and takes that course in distribution. A
    checkpoint can be resumed on any number of processes, on the same number exactly.

    Args:
        model: module with at least one parameter that is trained.
        loss: callable ``(model, *batch, generator=g) -> scalar tensor``. It must draw from ``g`` alone.
            A loss without an argument ``generator`` is called without it.
        data: floating-point tensor ``(N, *event)``, or a tuple of tensors with ``N`` rows each, of which the first is
            floating point and the others may be integers (labels).
        n_steps: number of optimiser steps in all, those of a resumed checkpoint included.
        batch_size: rows per step, at most; all of them if there are fewer.
        lr: step size of Adam.
        ema_decay: decay of the moving average, in (0, 1); ``None`` keeps the last weights instead.
        generator: source of all randomness; ``None`` makes one from a seed drawn from PyTorch's global generator.
        checkpoint: path of a file that holds the whole state, replaced atomically; ``None`` for none.
        checkpoint_every: number of steps between two writings; it is also written at the end and on Ctrl-C.
        resume: go on from ``checkpoint`` if it exists. ``False`` begins anew and replaces it.
        progress: show a bar while a person is watching; a page that is built or a log shows none.
        clip: greatest norm of the gradient, all parameters together; ``None`` for no limit.
        schedule: ``"constant"``, or ``"cosine"``, which lowers the step size to 0 along half a cosine over
            ``n_steps``: such a run can be resumed only with the same ``n_steps``.
        max_seconds: stop after the step that exceeds this wall time of this call. What you get then depends on the
            speed of the machine, so do not combine it with a claim that must repeat exactly.

    Returns:
        The :class:`History` of the run.

    Raises:
        ValueError: if an argument, the data, or the value of the loss is not as described; if ``checkpoint`` cannot be
            read, belongs to another model or other settings, or holds more than ``n_steps`` steps. The file is then
            left as it is. Under ``torchrun``, if a setting or the number of rows differs between processes.
        RuntimeError: if the loss or its gradient is NaN or infinite in any process. The last checkpoint stays as it is.
        OSError: if the checkpoint cannot be written, for want of room or of its folder. The one before stays whole.
        KeyboardInterrupt: on Ctrl-C, after the step under way, once the checkpoint is written.

    Whatever is raised after the first step, the model then holds the average over the whole steps before.

    Whatever ends the process, SIGTERM and SIGKILL, a power cut, a notebook that was disconnected, costs the steps since
    the last writing and no more: the same call goes on from there to the same bits. Bytes that change on the disk are
    noticed, and such a file is refused. Of two runs that write to one path at once the later writing wins, with a whole
    file; give each run a path of its own.
    """
    for name, count in {"n_steps": n_steps, "batch_size": batch_size, "checkpoint_every": checkpoint_every}.items():
        positive_integer(name, count)
    positive("lr", lr)
    for name, bound in {"clip": clip, "max_seconds": max_seconds}.items():
        if bound is not None:
            positive(name, bound)
    if ema_decay is not None and not (isinstance(ema_decay, numbers.Real) and 0 < ema_decay < 1):
        raise ValueError(f"ema_decay must lie in (0, 1) or be None, got {ema_decay!r}")
    one_of("schedule", schedule, ("constant", "cosine"))
    if generator is None:
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, (), device="cpu")))
    elif not isinstance(generator, torch.Generator):
        raise ValueError(f"generator must be a torch.Generator or None, got {generator!r}")
    first = _trained_parameters(model)[0]
    data = _checked_data(data, first.dtype)

    settings = {
        "rows": len(data[0]),
        "batch_size": batch_size,
        "lr": float(lr),
        "ema_decay": None if ema_decay is None else float(ema_decay),
        "clip": None if clip is None else float(clip),
        "schedule": schedule if schedule == "constant" else f"{schedule} over {n_steps} steps",
    }
    join(first.device)
    alike(
        **settings,
        n_steps=n_steps,
        checkpoint="none" if checkpoint is None else "a path",
        checkpoint_every=checkpoint_every,
        resume=resume,
        max_seconds=max_seconds,
    )
    common_state(generator)
    run = _Run(model, loss, data, generator, settings, n_steps)
    if checkpoint is not None:
        checkpoint, state = from_first(_found, checkpoint, run.state().keys())
        if state is not None and resume:
            run.restore(state, checkpoint)

    began = time.perf_counter()
    earlier = run.seconds
    out_of_time = False
    shown = progress and rank() == 0 and _is_watched()
    bar = tqdm(total=n_steps, initial=run.step, leave=False, mininterval=0.2, disable=not shown)
    model.train()
    try:
        with bar, _HeldInterrupt() as interrupt:
            while run.step < n_steps and not out_of_time:
                run.advance()
                run.seconds = earlier + time.perf_counter() - began
                if max_seconds is not None:
                    out_of_time = any_rank(run.seconds - earlier > max_seconds, run.device)
                last = run.step == n_steps or out_of_time
                if last:
                    run.agree()
                if checkpoint is not None and (last or run.step % checkpoint_every == 0):
                    from_first(_write, run.state(), checkpoint)
                if not bar.disable:
                    bar.set_postfix_str(f"loss {run.losses[-1]:.4g}", refresh=False)
                    bar.update()
                if any_rank(interrupt.came, run.device):
                    raise KeyboardInterrupt
    except KeyboardInterrupt:
        if checkpoint is not None and rank() == 0 and run.is_whole and run.step > 0:
            _write(run.state(), checkpoint)
        raise
    finally:
        run.finish()
    return History(torch.tensor(run.losses), run.seconds, stopped_early=run.step < n_steps)


class _Run:
    """The whole state of a training run: weights, their average, Adam, the generator and the place in the data.

    The generator's state and the place in the data are recorded at the end of each step, together: whatever ends a step
    half-way, what is recorded belongs to the weights.
    """

    def __init__(self, model, loss, data, generator, settings, n_steps):
        self.model, self.data, self.generator, self.settings = model, data, generator, settings
        self.n_steps = n_steps
        self.parameters = _trained_parameters(model)
        self.device = self.parameters[0].device
        self.objective = _Objective(model, loss)
        if n_ranks() > 1:  # from here on every rank has the weights of the first
            self.objective = DistributedDataParallel(self.objective, find_unused_parameters=True)
        fused = self.device.type in ("cpu", "cuda")  # a sixth of the time of the plain one on a CPU
        self.optimizer = torch.optim.Adam(self.parameters, lr=settings["lr"], fused=fused)
        self.average = None
        if settings["ema_decay"] is not None:
            self.average = AveragedModel(model, multi_avg_fn=self._average)
        self.takes_generator = _takes_generator(loss)
        self.step, self.seconds, self.losses = 0, 0.0, []
        self.order, self.position = torch.empty(0, dtype=torch.long), 0
        self.generator_state = generator.get_state()
        self.is_whole = True

    def advance(self) -> None:
        """Take one step, or raise and leave the weights as they are."""
        order, position = self.order, self.position
        if position >= len(order):
            n = len(self.data[0])
            order = torch.randperm(n, generator=self.generator, device=self.generator.device)
            position = 0
        rows = order[position : position + self.settings["batch_size"]]

        self.optimizer.zero_grad()
        loss = self._backward(rows)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings["clip"] or math.inf)
        self._stop_unless_finite(loss, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings["lr"] * self._schedule()

        self.is_whole = False
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.losses.append(_value(loss))
        self.order, self.position = order, position + len(rows)
        self.generator_state = self.generator.get_state()
        self.step += 1
        self.is_whole = True

    def _backward(self, rows) -> Tensor:
        """Leave the gradient of the loss over all these rows in the parameters of every rank; return that loss."""
        own = share(rows)
        portion = len(own) / len(rows)
        if len(own) == 0:
            own = rows[:1]  # DDP needs every rank to go backwards: this one does so in vain, with a row that counts 0
        batch = [tensor[own.to(tensor.device)].to(self.device) for tensor in self.data]
        keywords = {"generator": own_generator(self.generator)} if self.takes_generator else {}
        loss = self.objective(*batch, **keywords)
        if n_ranks() == 1:
            loss.backward()
            return loss
        (loss * (portion * n_ranks())).backward()  # of these DDP takes the mean
        return summed(loss.detach() * portion)

    def agree(self) -> None:
        """Give all ranks what the first has gathered in buffers, as DDP does before each step."""
        for buffer in self.model.buffers():
            copy_from_first(buffer)

    def finish(self) -> None:
        """Give the model its averaged weights, no gradients, and the mode of evaluation."""
        if self.average is not None and self.step > 0:
            with torch.no_grad():
                for parameter, mean in zip(self.model.parameters(), self.average.module.parameters(), strict=True):
                    parameter.copy_(mean)
        self.optimizer.zero_grad()
        self.objective = None
        self.model.eval()

    def state(self) -> dict:
        return {
            "format": _FORMAT,
            "settings": self.settings,
            "step": self.step,
            "seconds": self.seconds,
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "order": self.order,
            "position": self.position,
            "generator": self.generator_state,
            "generator_device": self.generator.device.type,
        }

    def restore(self, state, path) -> None:
        """Take over a state that was read, after checking all of it."""
        _check_weights(state["model"], self.model, path)
        for name, value in self.settings.items():
            if (written := state["settings"].get(name)) != value:
                raise ValueError(
                    f"checkpoint {path} was written with {name}={written!r}, not {value!r}; "
                    "take the same, another path, or resume=False to replace it"
                )
        if state["generator_device"] != self.generator.device.type:
            raise ValueError(
                f"checkpoint {path} was written with a generator on {state['generator_device']}, "
                f"got one on {self.generator.device.type}"
            )
        if state["step"] > self.n_steps:
            raise ValueError(f"n_steps must be at least the {state['step']} steps in {path}, got {self.n_steps}")
        try:
            self.model.load_state_dict(state["model"])
        except ValueError as error:
            raise ValueError(f"checkpoint {path} belongs to another model: {error}; it is left as it is") from error
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.step, self.seconds, self.losses = state["step"], state["seconds"], state["losses"].tolist()
        self.order, self.position = state["order"].to(self.generator.device), state["position"]
        self.generator.set_state(state["generator"])
        self.generator_state = state["generator"]

    def _schedule(self) -> float:
        if self.settings["schedule"] == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * self.step / self.n_steps))

    def _average(self, means, weights, n_averaged) -> None:
        # The number averaged so far is the number of steps, known here without asking the device.
        n = self.step + 1
        get_ema_multi_avg_fn(min(self.settings["ema_decay"], n / (n + 9)))(means, weights, n_averaged)

    def _stop_unless_finite(self, loss, norm) -> None:
        if loss.is_meta or (math.isfinite(loss.item()) and math.isfinite(norm.item())):
            return
        what = "loss" if not math.isfinite(loss.item()) else "gradient of the loss"
        last = f"last good loss {self.losses[-1]:.4g} at step {self.step}" if self.losses else "no step was good"
        raise RuntimeError(
            f"the {what} is not finite at step {self.step + 1} ({last}; the model is left as it was before). "
            f"Try a smaller lr than {self.settings['lr']:g}, data of about unit scale, or times and noise scales "
            "further from zero."
        )


class _Objective(nn.Module):
    """The loss as a module with the model inside, which DDP can wrap as a whole.

    It would refuse the model alone to some losses: its wrapper hides ``model.weight``, and it waits for the gradient of
    a bias that an energy's score does not depend on.
    """

    def __init__(self, model, loss):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, *batch, **keywords) -> Tensor:
        return _checked_loss(self.loss(self.model, *batch, **keywords))


def _value(loss) -> float:
    return math.nan if loss.is_meta else loss.item()


def _checked_loss(loss) -> Tensor:
    if not isinstance(loss, Tensor) or loss.ndim != 0:
        came = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"loss must return a scalar tensor, got {came}")
    if not loss.requires_grad:
        raise ValueError("loss must depend on the parameters of the model, got a tensor without gradient")
    return loss


def _takes_generator(loss) -> bool:
    try:
        parameters = signature(loss).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(p.name == "generator" or p.kind is Parameter.VAR_KEYWORD for p in parameters)


def _trained_parameters(model) -> list:
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("model must have at least one parameter that requires a gradient, got none")
    return parameters


def _checked_data(data, dtype) -> tuple:
    tensors = (data,) if isinstance(data, Tensor) else data
    if not isinstance(tensors, (tuple, list)) or not tensors or not all(isinstance(t, Tensor) for t in tensors):
        raise ValueError(f"data must be a tensor or a tuple of tensors, got {type(data).__name__}")
    if any(tensor.ndim == 0 or len(tensor) == 0 for tensor in tensors):
        raise ValueError(f"data must have at least one row, got shapes {[tuple(t.shape) for t in tensors]}")
    if len({len(tensor) for tensor in tensors}) > 1:
        raise ValueError(f"data must have as many rows in each tensor, got {[len(t) for t in tensors]}")
    if tensors[0].dtype != dtype:
        raise ValueError(f"data must be {dtype} like the weights of the model, got {tensors[0].dtype}")
    for tensor in tensors:
        finite("data", tensor)
    return tuple(tensor.detach() for tensor in tensors)


def _checked_path(checkpoint) -> Path:
    """The path with its links followed, once it is known that a file can be made beside it."""
    path = Path(checkpoint).resolve()
    if path.is_dir():
        raise ValueError(f"checkpoint must be the path of a file, got the folder {path}")
    if path.exists() and not path.is_file():
        raise ValueError(f"checkpoint must be the path of a file, got the pipe or device {path}")
    _clear_leftovers(path)
    trial = _fresh(path)
    try:
        trial.touch()
        trial.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(
            f"checkpoint must lie in a folder that exists and can be written, got {path} ({reason})"
        ) from error
    return path


def _found(checkpoint, parts) -> tuple:
    """The path where to write, and what stands there already, or ``None``."""
    path = _checked_path(checkpoint)
    return path, _read(path, parts) if path.exists() else None


def _read(path, parts) -> dict:
    try:
        with ZipFile(path) as archive:  # torch.load takes a byte that has changed on the disk for a weight
            if damaged := archive.testzip():
                raise ValueError(f"{damaged} is damaged")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ValueError(f"checkpoint {path} cannot be read ({reason}); it is left as it is") from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT or state.keys() != parts:
        raise ValueError(f"checkpoint {path} is not a whole one of {_FORMAT}; it is left as it is")
    return state


def _check_weights(state, model, path) -> None:
    # What a module keeps beside its tensors, it compares itself as it loads them.
    own, state = (
        {name: value for name, value in entries.items() if not name.endswith("_extra_state")}
        for entries in (model.state_dict(), state)
    )
    differing = sorted(own.keys() ^ state.keys()) or [
        f"{name} {tuple(state[name].shape)} {state[name].dtype}"
        for name in own
        if own[name].shape != state[name].shape or own[name].dtype != state[name].dtype
    ]
    if differing:
        raise ValueError(
            f"checkpoint {path} belongs to another model (first difference: {differing[0]}); it is left as it is"
        )


def _write(state, path) -> None:
    """Replace ``path`` in one stroke: a crash leaves the old file or the new one, never half of one."""
    content = BytesIO()
    torch.save(state, content)
    fresh = _fresh(path)
    try:
        with _opened(fresh) as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
            if fcntl is not None:  # still under the lock: without it the file passes for a leftover
                os.replace(fresh, path)
        if fcntl is None:  # there an open file cannot be renamed
            os.replace(fresh, path)
    except OSError as error:
        earlier = "the one written before is whole" if path.is_file() else "there is no earlier one"
        raise OSError(
            f"checkpoint {path} of step {state['step']} could not be written ({error.strerror or error}); {earlier}. "
            "Make room there or name another path, and call fit again: it goes on from the checkpoint it finds"
        ) from error
    finally:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)


def _fresh(path) -> Path:
    """Where this process writes a checkpoint before it takes its name."""
    return path.with_name(f".{path.name}.{os.getpid()}.new")


def _opened(fresh):
    """A new file under a lock. Until it has the lock, whoever clears leftovers may take it away: then once more."""
    while True:
        file = fresh.open("wb")
        with suppress(OSError):  # some network folders have no locks
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)  # the one who clears holds it for a moment
        if _is_at(file, fresh):
            return file
        file.close()


def _clear_leftovers(path) -> None:
    """Remove what killed processes left of a checkpoint; one that is being written is locked."""
    for leftover in path.parent.glob(f".{escape(path.name)}.*.new"):
        with suppress(OSError):
            if fcntl is None:  # there an open file cannot be removed
                leftover.unlink()
                continue
            with leftover.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(file, leftover):
                    leftover.unlink()


def _is_at(file, path) -> bool:
    """Whether the open file is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _is_watched() -> bool:
    """Whether a person sees the bar: a terminal, Colab or a live Jupyter, not a page being built or a log.

    Jupyter names the open notebook to the kernels it starts; programs that execute notebooks do not.
    """
    return sys.stderr.isatty() or "google.colab" in sys.modules or "JPY_SESSION_NAME" in os.environ


class _HeldInterrupt:
    """Hold Ctrl-C back until the step under way is complete; a second one acts at once."""

    def __enter__(self):
        self.came = False
        self.held = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self.held:
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, kind, *rest):
        if self.held:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if kind is None:
            self.deliver()

    def _note(self, number, frame):
        self.came = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def deliver(self) -> None:
        if self.came:
            raise KeyboardInterrupt
