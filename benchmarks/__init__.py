"""Scorebook beside what one would pick instead, measured in one run on one machine; see README.md."""
