"""Train a score on the digits, draw new ones and score the held-out ones.

On one device:  python examples/train_digits.py
On four:        torchrun --nproc-per-node 4 examples/train_digits.py
"""

import argparse

import torch

from scorebook import lab, probability_flow, sde

BIN = 0.125  # the 17 grey levels on [-1, 1]

parser = argparse.ArgumentParser()
parser.add_argument("--n-steps", type=int, default=6000)
parser.add_argument("--batch-size", type=int, default=128)  # of all processes together
parser.add_argument("--checkpoint", default="digits.pt")
parser.add_argument("--n-samples", type=int, default=1000)
given = parser.parse_args()

lab.use_one_thread()  # on a CPU; a network this small gains nothing from a second
device = lab.device()  # under torchrun, the GPU of this process
generator = torch.Generator().manual_seed(0)
images, labels = lab.digits("train")
held_out, _ = lab.digits("test")

process = sde.VPSDE()
network = lab.TimeMLP((1, 8, 8), n_classes=10, generator=generator)
model = sde.ScoreModel(network, process, data_std=images.std().item())
model.to(device)


def loss(model, x, labels, *, generator):
    """Denoising score matching, the grey levels spread over their bins."""
    x = probability_flow.dequantize(x, BIN, generator=generator)
    return sde.score_matching_loss(
        model,
        process,
        x,
        labels=labels,
        p_drop=0.1,
        weighting=model.weight,
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
)


def draw(x, generator):
    """New digits from noise, by the reverse-time SDE."""
    return sde.euler_maruyama(process, model, x, n_steps=200, generator=generator)


def log_likelihood(x, generator):
    """Log-densities under the probability flow."""
    return probability_flow.log_prob(
        process,
        model,
        x,
        divergence="hutchinson",
        method="heun2",
        n_steps=50,
        generator=generator,
    )


shape = given.n_samples, 1, 8, 8
noise = process.sample_prior(shape, generator=generator, device=device)
samples = lab.over_ranks(draw, noise, generator=generator)
held_out = probability_flow.dequantize(held_out, BIN, generator=generator)
log_prob = lab.over_ranks(log_likelihood, held_out.to(device), generator=generator)

if lab.rank() == 0:
    bits = probability_flow.bits_per_dim(log_prob, 64, BIN).mean().item()
    smoothed = history.smoothed()[-1].item()
    print(f"{history.n_steps} steps, loss {smoothed:.3f}, held-out bits/dim {bits:.3f}")
    result = {"model": model.state_dict(), "samples": samples.cpu()}
    torch.save(result, "trained_digits.pt")
