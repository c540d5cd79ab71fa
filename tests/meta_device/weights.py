"""Why nothing of ``scorebook.lab.weights`` meets the meta device: ``fit`` is tried there as a whole."""

WHOLE = "is a part of fit, which trains a model on the meta device in test_training"

NOT_DRIVEN = {
    "Average": WHOLE,
    "Keepsakes": WHOLE,
    "Precise": WHOLE,
    "check_extra_states": "compares states of any kind",
    "check_weights": "compares names, shapes and types",
    "load_weights": "gives a model what was read from a file",
}
