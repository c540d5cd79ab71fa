"""Score-based generative modelling, each claim measured against a known truth.

Chapters of the book import two names: their own module and the lab, as in
``from scorebook import langevin, lab``.
"""

__version__ = "0.1.0"
