"""Laws that neither torch nor Pyro has."""

from ppl_gen.laws.autoregressive import Autoregressive, Layered
from ppl_gen.laws.base import Law
from ppl_gen.laws.drawn import Drawn
from ppl_gen.laws.finite import Features, Numbers, StraightThroughBernoulli, StraightThroughOneHot
from ppl_gen.laws.flower import Flower
from ppl_gen.laws.flows import Flow, zuko_flows
from ppl_gen.laws.joined import Joined
from ppl_gen.laws.mixture import NormalMixture
from ppl_gen.laws.radial import (
    Logistic,
    LogisticRadius,
    Radial,
    directions,
    log_area,
    stretched,
)
from ppl_gen.laws.shares import KumaraswamySticks, LogRatios, Sticks
from ppl_gen.laws.shrinkage import Horseshoe
from ppl_gen.laws.spheres import OnSphere, PowerSpherical, VonMisesFisher

__all__ = [
    "Autoregressive",
    "Drawn",
    "Features",
    "Flow",
    "Flower",
    "Horseshoe",
    "Joined",
    "KumaraswamySticks",
    "Law",
    "Layered",
    "LogRatios",
    "Logistic",
    "LogisticRadius",
    "NormalMixture",
    "Numbers",
    "OnSphere",
    "PowerSpherical",
    "Radial",
    "Sticks",
    "StraightThroughBernoulli",
    "StraightThroughOneHot",
    "VonMisesFisher",
    "directions",
    "log_area",
    "stretched",
    "zuko_flows",
]
