"""Train a score on digits of 28 by 28, in mixed precision if asked, draw new ones and score the held-out ones.

On one device:  python examples/train_mnist.py
On four:        torchrun --nproc-per-node 4 examples/train_mnist.py --bfloat16
All of MNIST:   ... --full-mnist FOLDER
"""

import argparse
import math

import torch

from scorebook import controllable_generation, lab, probability_flow, sde

BIN_WIDTH = 2 / 255  # of the 256 grey levels on [-1, 1]

parser = argparse.ArgumentParser()
parser.add_argument("--full-mnist", metavar="FOLDER", help="take all 60,000 digits, from torchvision's files there")
parser.add_argument("--bfloat16", action="store_true", help="multiply and convolve in bfloat16: Ampere GPUs and later")
parser.add_argument("--n-steps", type=int, default=20_000)
parser.add_argument("--batch-size", type=int, default=256)  # of all processes together
parser.add_argument("--width", type=int, default=64)
parser.add_argument("--checkpoint", default="mnist.pt")
parser.add_argument("--n-samples", type=int, default=10_000)
parser.add_argument("--n-told", type=int, default=1000)
parser.add_argument("--chunk-size", type=int, default=500)  # rows at a time on each device, as its memory allows
given = parser.parse_args()

lab.use_one_thread()
device = lab.device()  # under torchrun, the GPU of this process
generator = torch.Generator().manual_seed(0)


def data(split):
    """All of MNIST, or the 5000 digits that need no download."""
    return lab.full_mnist(given.full_mnist, split) if given.full_mnist else lab.mnist(split)


images, labels = data("train")
held_out, held_out_labels = (rows[: given.n_told] for rows in data("test"))

process = sde.VPSDE()
network = lab.UNet(1, width=given.width, n_classes=10, generator=generator)
model = sde.ScoreModel(network, process, data_std=images.std().item())
# Convolutions on a GPU want the channels of a pixel side by side; the pictures follow the weights.
model.to(device=device, memory_format=torch.channels_last)
noise_levels = sde.log_normal_times(process, mean=-0.6, std=1.8, t_min=1e-5)


def loss(model, x, labels, *, generator):
    """Denoising score matching, the grey levels spread over their bins."""
    x = probability_flow.dequantize(x, BIN_WIDTH, generator=generator)
    return sde.score_matching_loss(
        model,
        process,
        x,
        labels=labels,
        p_drop=0.2,
        weighting=model.weight,
        sample_times=noise_levels,
        generator=generator,
    )


history = lab.fit(
    model,
    loss,
    (images, labels),
    n_steps=given.n_steps,
    batch_size=given.batch_size,
    lr=2e-3,
    schedule="cosine",
    generator=generator,
    checkpoint=given.checkpoint,
    autocast=torch.bfloat16 if given.bfloat16 else None,
)


def draw(z, labels):
    """New digits of these labels from noise, by the probability flow."""
    return probability_flow.sample(process, controllable_generation.given(model, label=labels), z, n_steps=16)


def draw_share(z, labels):
    """The digits of one process, some at a time."""
    return lab.in_chunks(draw, z, labels, chunk_size=given.chunk_size)


def log_likelihood(x, labels, generator):
    """Log-densities under the probability flow."""
    return probability_flow.log_prob(
        process,
        controllable_generation.given(model, label=labels),
        x,
        divergence="hutchinson",
        method="adams",
        times=process.time_grid(25, spacing="log"),
        generator=generator,
    )


asked = (torch.arange(given.n_samples) % 10).to(device)
noise = process.sample_prior((given.n_samples, 1, 28, 28), generator=generator, device=device)
samples = lab.over_ranks(draw_share, noise, asked)
x = probability_flow.dequantize(held_out, BIN_WIDTH, generator=generator).to(device)
log_prob = lab.over_ranks(log_likelihood, x, held_out_labels.to(device), generator=generator)

if lab.rank() == 0:
    bits = probability_flow.bits_per_dim(log_prob, math.prod(x.shape[1:]), BIN_WIDTH).mean().item()
    smoothed = history.smoothed()[-1].item()
    print(f"{history.n_steps} steps, loss {smoothed:.1f}, held-out bits/dim {bits:.3f}")
    torch.save({"model": model.state_dict(), "samples": samples.cpu()}, "trained_mnist.pt")
