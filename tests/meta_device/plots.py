"""Why nothing of ``scorebook.lab.plots`` meets the meta device."""

DRAWS = "draws numbers, which a meta tensor has not"

NOT_DRIVEN = {
    "density": DRAWS,
    "image_grid": DRAWS,
    "photographs": "takes no tensor",
    "samples": DRAWS,
    "score_field": DRAWS,
    "trajectories": DRAWS,
    "use_style": "takes no tensor",
}
