"""Why nothing of ``scorebook.lab.training`` meets the meta device."""

NOT_DRIVEN = {
    "History": "holds the losses as numbers, on the CPU",
    "held_out_loss": "returns numbers",
    "fit": "reads the loss at each step, to stop when it is not finite",
}
