"""Every public function that takes tensors works on another device than the CPU.

A GPU is seldom at hand, but the ``meta`` device always is: its tensors have a shape, a type and a device, and no
values. A function that makes a tensor on the wrong device, reads a value without need, or draws with a generator of
another device, is an error here as it would be, or would cost time, there. The calls stand in ``tests/meta_device``.
"""

import importlib
import pkgutil
from pathlib import Path

import meta_device
import public
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CALLS = {
    name: importlib.import_module(f"meta_device.{name}") for _, name, _ in pkgutil.iter_modules(meta_device.__path__)
}

# What may join two devices: copying between them, and reading a tensor with indices that live on the CPU.
JOINING = {torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default}
INDEXING = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten.index_put.default}


class OneDevice(TorchDispatchMode):
    """Refuses an operation on tensors of two devices, as CUDA does and meta in part does not."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        operands = args[:1] if func in INDEXING else (args, kwargs)
        devices = {leaf.device.type for leaf in tree_leaves(operands) if isinstance(leaf, torch.Tensor) and leaf.dim()}
        assert len(devices) < 2 or func in JOINING, f"{func} joins tensors on {' and '.join(sorted(devices))}"
        drawn_with = [leaf.device for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Generator)]
        drawn = [leaf.device for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        assert not drawn_with or set(drawn_with) == set(drawn), f"{func} draws on {drawn} with one on {drawn_with}"
        return result


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, calls in CALLS.items() for name in getattr(calls, "DRIVEN", {})]
)
def test_a_call_stays_on_the_device_of_its_arguments(module, name):
    with OneDevice():
        result = CALLS[module].DRIVEN[name]()
    tensors = list(public.tensors_in(result))
    assert tensors, "the call returned no tensor"
    assert {tensor.device.type for tensor in tensors} == {"meta"}


@pytest.mark.parametrize("module", sorted(public.MODULES))
def test_every_public_name_is_driven_or_says_why_not(module):
    path = Path(meta_device.__file__).parent / f"{module}.py"
    code = importlib.import_module(public.MODULES[module])
    names = set(public.functions(code))
    driven = set(getattr(CALLS.get(module), "DRIVEN", {}))
    excused = getattr(CALLS.get(module), "NOT_DRIVEN", {})
    answered = driven | {name for name in names if name in excused or name.partition(".")[0] in excused}
    assert names <= answered, f"give a line in {path} to: {', '.join(sorted(names - answered))}"
    assert driven | set(excused) <= names | set(code.__all__), "a call or an excuse is left of a name that has gone"
    assert not driven & set(excused), "these are driven and excused"
    assert all(reason.strip() for reason in excused.values())


def test_every_file_of_calls_belongs_to_a_module():
    assert set(CALLS) <= set(public.MODULES)


def foreign_constant(x):
    return torch.nn.functional.linear(x, torch.ones(3, 2))


def foreign_generator(x):
    return torch.randn(x.shape, generator=meta_device.generator(), device=x.device)


def value_read(x):
    return x if x.sum() > 0 else -x


@pytest.mark.parametrize("wrong", [foreign_constant, foreign_generator, value_read])
def test_the_device_check_sees_what_a_gpu_would_refuse(wrong):
    with pytest.raises((AssertionError, RuntimeError)), OneDevice():
        wrong(meta_device.points())
