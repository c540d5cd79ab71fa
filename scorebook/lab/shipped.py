r"""Networks that come trained: digits without the wait.

Each has a *card*, a dictionary that says what the network is, on which data and how it was trained, by which command,
and how good it is, each figure with its standard error. The chapters show how such training goes; ``make weights`` in a
clone of the book runs it again and writes weights and cards anew.

================== ================================================== =======================================
name               network                                            trained for
================== ================================================== =======================================
digits             :class:`~scorebook.lab.networks.TimeMLP`           the score of digits, label or not
coloured_digits    :class:`~scorebook.lab.networks.TimeMLP`           the same for coloured digits
mnist              :class:`~scorebook.lab.networks.UNet`              the score of digits of 28 by 28 pixels
digits_classifier  :class:`~scorebook.lab.networks.NoisyClassifier`   the class of a diffused digit
================== ================================================== =======================================

All four belong to one SDE, ``VPSDE(**card["sde"]["arguments"])``. The first three are the inner network of a
``ScoreModel``, which turns them into a score::

    network, card = lab.pretrained("digits")
    vp = sde.VPSDE(**card["sde"]["arguments"])
    model = sde.ScoreModel(network.to(device), vp, data_std=card["data_std"])
    score = model(x, t, label=label)  # label -1, or none given: the score of all digits

Half of the digits in their training were distorted, under labels of their own, 10 to 19, lest the network learn a few
thousand digits by heart; labels 0 to 9 and -1 mean digits as they are. The card tells how far that was avoided: bits
per dimension and lengths of codes of digits learned from beside those of digits held out, and the share of samples that
are nearer to the former.

The classifier takes the diffused point and the plain time, ``classifier(x, t)``.
"""

import hashlib
import json
from importlib.resources import files
from typing import Any, Literal, TypeAlias, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from scorebook.lab.arguments import one_of
from scorebook.lab.networks import NoisyClassifier, TimeMLP, UNet

__all__ = ["pretrained"]

_Name: TypeAlias = Literal["digits", "coloured_digits", "mnist", "digits_classifier"]
_NAMES = get_args(_Name)
_NETWORKS = {"NoisyClassifier": NoisyClassifier, "TimeMLP": TimeMLP, "UNet": UNet}
_FOLDER = files("scorebook.lab") / "weights"


def pretrained(name: _Name) -> tuple[nn.Module, dict[str, Any]]:
    """Load a trained network and its card.

    The weights are stored in half precision and loaded in single precision, on the CPU; the card states what the
    rounding costs. They can be trained further: each call gives a network of its own.

    Args:
        name: ``"digits"``, ``"coloured_digits"``, ``"mnist"`` or ``"digits_classifier"``.

    Returns:
        The network, in evaluation mode, and its card. Of the card, ``network`` and ``sde`` hold name and arguments,
        ``data_std`` the scale that a ``ScoreModel`` needs, ``data``, ``training``, ``command``, ``versions`` and
        ``licence`` where it comes from, and ``figures`` what was measured: ``value``, standard ``error``, the number
        ``n`` of independent draws behind them, and ``of``, what the figure is.

    Raises:
        ValueError: if the name is unknown.
        FileNotFoundError: if a file is missing from the installed package.
        RuntimeError: if a file is damaged: not the one that the card describes, or no card.
    """
    one_of("name", name, _NAMES)
    card = _card(name)
    stored = _bytes(name, ".safetensors")
    if hashlib.sha256(stored).hexdigest() != card["sha256"]:
        raise RuntimeError(_damaged(name, ".safetensors", "its checksum is not the one on the card"))
    try:
        weights = load(stored)
        # A generator of its own: the first weights are replaced at once and must not move the global random state.
        with torch.device("cpu"):
            network = _NETWORKS[card["network"]["name"]](**card["network"]["arguments"], generator=torch.Generator())
        network = network.float()
        network.load_state_dict(weights)
    except (SafetensorError, RuntimeError) as error:
        raise RuntimeError(_damaged(name, ".safetensors", str(error))) from error
    return network.eval(), card


def _card(name: str) -> dict[str, Any]:
    stored = _bytes(name, ".json")
    try:
        card = json.loads(stored)
        missing = {"network", "sha256"} - card.keys()
    except (ValueError, AttributeError) as error:
        raise RuntimeError(_damaged(name, ".json", str(error))) from error
    if missing:
        raise RuntimeError(_damaged(name, ".json", f"it lacks {', '.join(sorted(missing))}"))
    return card


def _bytes(name: str, ending: str) -> bytes:
    path = _FOLDER / f"{name}{ending}"
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing from the package: install scorebook again") from error


def _damaged(name: str, ending: str, why: str) -> str:
    return f"{_FOLDER / f'{name}{ending}'} is damaged ({why}): install scorebook again, or run make weights in a clone"
