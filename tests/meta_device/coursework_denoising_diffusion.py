"""Why nothing of ``scorebook.coursework.denoising_diffusion`` meets the meta device."""

MEASURES = "measures what a student's code returns, on problems of its own on the CPU"

NOT_DRIVEN = {
    "check_conversion": MEASURES,
    "check_ddim_step": MEASURES,
    "check_ddpm_step": MEASURES,
}
