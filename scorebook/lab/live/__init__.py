"""Figures that a reader moves and that compute in the page: :func:`live`.

What they compute stands in ``engine``, a mirror of this package in JavaScript; what all figures share, in ``frame``;
and each figure in ``figures``. ``make live`` bundles them. How to add one is told in CONTRIBUTING.
"""

import base64
import html
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scorebook.lab.distributions import GaussianMixture

__all__ = ["live"]

HERE = Path(__file__).resolve().parent
WEIGHTS = HERE.parent / "weights"

# A page holds the bundle once, however many figures it has: in its own script, or in a model that all of them share.
LOADER = """
const load = (model) => (globalThis.scorebookLiveLoads ??= (async () => {
  if (!globalThis.scorebookLive) {
    const library = await model.widget_manager.get_model(model.get("library").replace("IPY_MODEL_", ""));
    const address = URL.createObjectURL(new Blob([library.get("source")], { type: "text/javascript" }));
    await import(address);
    URL.revokeObjectURL(address);
  }
  return globalThis.scorebookLive;
})());
export default { async render(context) { return (await load(context.model)).render(context); } };
"""
IN_COLAB = "\nexport default { render: (context) => globalThis.scorebookLive.render(context) };\n"


def live(name: str, **state: Any) -> Any:
    """A figure that computes in the page, with Python behind it or without.

    The reader drags laws, points and noise, and each number that the figure measures stands beside its truth. With a
    kernel the figure's state is Python's too: ``figure.law`` is the ``GaussianMixture`` as it was dragged,
    ``figure.samples`` the crowd when it last stopped, shape ``(n, 2)``, or ``(32, 64)`` for the digits, both in double
    precision on the CPU, and both are up to date in the next cell. ``figure.law = ...`` moves what is shown.

    Args:
        name: which figure, such as ``"langevin"``.
        **state: what shall differ from the state in which the figure begins: ``seed``, ``law`` (a
            ``GaussianMixture`` with isotropic components, or a mapping of ``weights``, ``means`` and
            ``stds``), and the figure's own, such as ``step``.

    Returns:
        A widget, or, where anywidget is not installed, a picture that says what to install. As the last expression of a
        cell it shows itself.

    Raises:
        TypeError: if a part of the state is not of the kind that the figure has there.
        ValueError: if there is no such figure, it has no such part of a state, or a law of other parts.

    Example:
        Drag the modes, run, and go on in the next cell::

            figure = lab.live("langevin", law=lab.GaussianMixture([0.3, 0.7], [[-2.0, 0.0], [2.0, 1.0]], 0.5))
            figure

            lab.mode_weights(figure.samples, figure.law.means)
            figure.law.log_prob(figure.samples).mean()
    """
    told = _told()
    if name not in told:
        raise ValueError(f"name must be one of {', '.join(told)}, got {name!r}")
    begin = told[name]["state"]
    for key, value in state.items():
        if key not in begin:
            raise ValueError(f"the figure {name!r} has {', '.join(begin)} in its state, and no {key!r}")
        state[key] = _plain(key, value, begin[key])
    try:
        kind = _widget()
    except ImportError:
        return _Still(name)
    weights = told[name]["weights"]
    return kind(
        figure=name,
        state=json.loads(json.dumps(begin)) | state,
        weights=(WEIGHTS / f"{weights}.safetensors").read_bytes() if weights else b"",
    )


def _plain(key: str, value: Any, like: Any) -> Any:
    """A part of a state as JSON has it."""
    if isinstance(value, GaussianMixture):
        value = _of_law(value)
    elif isinstance(value, Tensor):
        value = value.detach().cpu().tolist()
    elif isinstance(value, Mapping):
        value = {
            k: _plain(f"{key}[{k!r}]", v, like[k]) for k, v in value.items() if isinstance(like, dict) and k in like
        }
    elif isinstance(value, tuple):
        value = list(value)
    groups: list[tuple[type, ...]] = [(bool,), (int, float), (str,), (list,), (dict,)]
    expected = next((group for group in groups if isinstance(like, group)), (object,))
    if not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected and like is not None):
        raise TypeError(f"{key} must be like {like!r}, got {value!r}")
    if isinstance(value, dict) and set(value) != set(like):
        raise TypeError(f"{key} must have {', '.join(like)}, got {', '.join(value)}")
    if key == "law":
        (n, dim), (own, own_dim) = (_mixture(law).means.shape for law in (value, like))
        if (n, dim) != (own, own_dim):
            where = f"{own_dim} dimension{'s' if own_dim > 1 else ''}"
            raise ValueError(f"law must have {own} components in {where}, got {n} in {dim}")
    return value


def _mixture(law: Any) -> GaussianMixture:
    """The mixture that a state means."""
    weights, means, stds = (torch.tensor(law[key], dtype=torch.double) for key in ("weights", "means", "stds"))
    return GaussianMixture(weights, means, stds**2)


def _of_law(law: GaussianMixture) -> dict[str, Any]:
    """Weights, means and standard deviations of a mixture with isotropic components."""
    covariances = law.covariances.detach().cpu()
    variances = covariances if covariances.ndim == 1 else covariances.diagonal(dim1=-2, dim2=-1)[:, 0]
    if covariances.ndim > 1 and not torch.allclose(
        covariances, torch.diag_embed(variances[:, None].expand(law.means.shape))
    ):
        raise ValueError("law must have isotropic components, each a multiple of the identity")
    parts = {"weights": law.weights, "means": law.means, "stds": variances.sqrt()}
    return {key: part.detach().cpu().double().tolist() for key, part in parts.items()}


@cache
def _told() -> dict[str, Any]:
    """What the figures tell of themselves."""
    told: dict[str, Any] = json.loads((HERE / "figures.json").read_text(encoding="utf-8"))
    return told


def _still(name: str) -> str | None:
    """The figure's first state as a picture, PNG in base64, where there is one."""
    path = HERE / "stills" / f"{name}.png"
    return base64.b64encode(path.read_bytes()).decode() if path.exists() else None


class _Still:
    """What is shown without anywidget: the picture, and what to install."""

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return (
            f"lab.live({self.name!r}): this figure moves where anywidget is installed. "
            "Run `%pip install --no-deps anywidget psygnal`, restart the kernel and run this cell again."
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        picture, alt = _still(self.name), html.escape(_told()[self.name]["alt"])
        shown = f'<img src="data:image/png;base64,{picture}" alt="{alt}" style="max-width: 100%">' if picture else ""
        return {"text/plain": repr(self), "text/html": f"{shown}<p>{html.escape(repr(self))}</p>"}


@cache
def _widget() -> Any:
    """The class of the widgets: made when the first is asked for, for anywidget may be absent."""
    import anywidget
    import traitlets
    from anywidget._util import in_colab
    from ipywidgets import Widget, widget_serialization

    bundle = (HERE / "bundle.js").read_text(encoding="utf-8")
    alone = in_colab()  # there each output is a page of its own

    class Library(anywidget.AnyWidget):
        """The bundle, once for all figures of a page."""

        _esm = "export default {};"
        source = traitlets.Unicode(bundle).tag(sync=True)

    library: list[Any] = []

    def shared() -> Any:
        if not library or library[-1].comm is None:
            library[:] = [Library(source="" if alone else bundle)]
        return library[-1]

    class Live(anywidget.AnyWidget):
        """A figure. ``state`` is all that a reader can set; ``crowd`` the bytes of its points."""

        _esm = bundle + IN_COLAB if alone else LOADER
        library = traitlets.Instance(Widget).tag(sync=True, **widget_serialization)
        figure = traitlets.Unicode().tag(sync=True)
        state = traitlets.Dict().tag(sync=True)
        weights = traitlets.Bytes().tag(sync=True)
        crowd = traitlets.Bytes().tag(sync=True, from_json=lambda buffer, _: bytes(buffer))  # a view of memory comes

        def __init__(self, **given: Any):
            super().__init__(library=shared(), **given)

        def __repr__(self) -> str:
            return f"lab.live({self.figure!r})"

        @property
        def law(self) -> GaussianMixture:
            """The mixture as it was dragged, in double precision on the CPU."""
            if "law" not in self.state:
                raise AttributeError(f"the figure {self.figure!r} has no law of its own")
            return _mixture(self.state["law"])

        @law.setter
        def law(self, law: GaussianMixture) -> None:
            self.state = self.state | {"law": _plain("law", law, _told()[self.figure]["state"]["law"])}

        @property
        def samples(self) -> Tensor:
            """The crowd when it last stopped, shape (n, d); none before a browser has shown the figure."""
            width = _told()[self.figure]["width"]
            if not self.crowd:
                return torch.empty(0, width, dtype=torch.double)
            return torch.frombuffer(bytearray(self.crowd), dtype=torch.double).reshape(-1, width).clone()

        def _repr_mimebundle_(self, **keywords: Any) -> Any:
            made = super()._repr_mimebundle_(**keywords)
            data, metadata = made if isinstance(made, tuple) else (made, {})
            picture = _still(self.figure)
            if data and picture:
                data = data | {"image/png": picture}
            return data, metadata

    return Live
