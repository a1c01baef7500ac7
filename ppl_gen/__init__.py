"""Write the story of your data; ppl-gen fits it and says whether to trust the posterior.

>>> import ppl_gen as pg
>>> from ppl_gen.models import PPCA
>>> data = pg.data.load("iris")
>>> run = pg.fit(PPCA(data.shape, latent=2), data.train, epochs=2, progress=False)
>>> len(run.history)
2
"""

from ppl_gen import data
from ppl_gen.errors import DataError, FitError, PplGenError, RunError, StoryError
from ppl_gen.inference import (
    Comparison,
    EngineComparison,
    Run,
    Verdict,
    align_labels,
    check,
    compare,
    compare_engines,
    doctor,
    fit,
    load,
    to_arviz,
)
from ppl_gen.report import write_report
from ppl_gen.story import Story

__version__ = "0.1.0"

__all__ = [
    "Comparison",
    "DataError",
    "EngineComparison",
    "FitError",
    "PplGenError",
    "Run",
    "RunError",
    "Story",
    "StoryError",
    "Verdict",
    "align_labels",
    "check",
    "compare",
    "compare_engines",
    "data",
    "doctor",
    "fit",
    "load",
    "to_arviz",
    "write_report",
]
