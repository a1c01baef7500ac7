"""Laws that neither torch nor Pyro has."""

from ppl_gen.laws.flower import Flower
from ppl_gen.laws.radial import (
    Logistic,
    LogisticRadius,
    Radial,
    directions,
    log_area,
    stretched,
)
from ppl_gen.laws.shares import LogRatios, Sticks

__all__ = [
    "Flower",
    "LogRatios",
    "Logistic",
    "LogisticRadius",
    "Radial",
    "Sticks",
    "directions",
    "log_area",
    "stretched",
]
