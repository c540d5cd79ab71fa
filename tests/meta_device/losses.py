"""Why nothing of ``scorebook.lab.losses`` meets the meta device."""

NOT_DRIVEN = {
    "Objective": "is a part of fit, which trains a model on the meta device in test_training",
    "check_fits": "looks at the parameters of a function",
    "in_place": "returns a function",
    "scalar": "returns what it is given",
    "takes_generator": "looks at the parameters of a function",
}
