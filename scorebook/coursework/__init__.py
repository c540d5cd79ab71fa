r"""Checks of a student's own code, each with a diagnosis.

Every check takes the student's callable, holds it against a truth that is known exactly, on problems drawn anew from
``seed``, and returns a :class:`~scorebook.coursework.reports.Report`: passed or not, what was measured, what was
expected, and what is wrong in plain words. A catalogue of the usual mistakes says for each what its author would
measure; the one that fits is named.

    >>> from scorebook import coursework, langevin
    >>> coursework.check_langevin(langevin.langevin).require()  # doctest: +ELLIPSIS
    ✓ check_langevin passed: ...

A check neither hangs nor dies on what it is given: exceptions, wrong shapes, NaN, endless loops and changed inputs
become a report.
"""

from scorebook.coursework.class_guidance import check_classifier_free, check_classifier_guidance, check_label_dropping
from scorebook.coursework.controllable_generation import check_guidance
from scorebook.coursework.denoising_diffusion import check_conversion, check_ddim_step, check_ddpm_step
from scorebook.coursework.learning import check_divergence, check_loss, check_score
from scorebook.coursework.metropolis import check_metropolis
from scorebook.coursework.monte_carlo import check_estimate
from scorebook.coursework.posterior import check_coverage, check_posterior, check_ranks
from scorebook.coursework.probability_flow import check_log_prob, check_probability_flow
from scorebook.coursework.reports import Measurement, Report
from scorebook.coursework.sampling import check_annealed, check_langevin
from scorebook.coursework.sde import check_reverse_step, check_sampler, check_sde
from scorebook.coursework.sliced_score_matching import check_projections

__all__ = [
    "Measurement",
    "Report",
    "check_annealed",
    "check_classifier_free",
    "check_classifier_guidance",
    "check_conversion",
    "check_coverage",
    "check_ddim_step",
    "check_ddpm_step",
    "check_divergence",
    "check_estimate",
    "check_guidance",
    "check_label_dropping",
    "check_langevin",
    "check_log_prob",
    "check_loss",
    "check_metropolis",
    "check_posterior",
    "check_probability_flow",
    "check_projections",
    "check_ranks",
    "check_reverse_step",
    "check_sampler",
    "check_score",
    "check_sde",
]
