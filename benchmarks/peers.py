"""Smalldiffusion, wherever it is installed.

It imports torchvision for data sets that no benchmark uses. PyPI's torchvision is compiled for the torch with CUDA;
beside a torch for CPUs its import fails on the first of its own operations that it looks up. With their names declared,
the rest, which is Python, is imported; no benchmark calls the operations.
"""

import torch

try:
    import torchvision  # noqa: F401
except (RuntimeError, OSError):
    _declarations = torch.library.Library("torchvision", "DEF")
    for _operation in ("nms", "qnms"):
        _declarations.define(f"{_operation}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import smalldiffusion

__all__ = ["smalldiffusion"]
