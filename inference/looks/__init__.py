"""What is looked at in a model, a guide and some data, one question a file.

Each look takes a :class:`Patient`, whose pair is a copy, and gives one finding for each fault, or
one that says that there is none or why it cannot be known. Limits without a source are ours.
Whether one thing depends on another is asked of stirred weights: many a weight is 0 at first, and
the fit moves it.
"""

from ppl_gen.inference.looks.apart import apart
from ppl_gen.inference.looks.copies import copies
from ppl_gen.inference.looks.encoder import encoder
from ppl_gen.inference.looks.finite import finite, not_finite, spoilt_data
from ppl_gen.inference.looks.gradients import gradients
from ppl_gen.inference.looks.likelihood import likelihood
from ppl_gen.inference.looks.patient import Patient, copied, permuted
from ppl_gen.inference.looks.stand_ins import stand_ins
from ppl_gen.inference.looks.supports import supports
from ppl_gen.inference.looks.weights import weights

__all__ = [
    "Patient",
    "apart",
    "copied",
    "copies",
    "encoder",
    "finite",
    "gradients",
    "likelihood",
    "not_finite",
    "permuted",
    "spoilt_data",
    "stand_ins",
    "supports",
    "weights",
]
