"""How a story is learned, and how one knows that it was: fitting, posteriors, checks, runs."""

from ppl_gen.inference.arviz import to_arviz
from ppl_gen.inference.checks import check
from ppl_gen.inference.codes import drawn_codes
from ppl_gen.inference.compare import compare
from ppl_gen.inference.comparison import Candidate, Comparison, LeaveOneOut
from ppl_gen.inference.disk import load
from ppl_gen.inference.doctor import doctor
from ppl_gen.inference.engine_comparison import Engine, EngineComparison
from ppl_gen.inference.engines import compare_engines
from ppl_gen.inference.estimators import (
    ClassifierTest,
    Evidence,
    TwoSample,
    classifier_test,
    khat_threshold,
    log_evidence,
    mmd,
    mmd_test,
    pareto_khat,
)
from ppl_gen.inference.fit import fit
from ppl_gen.inference.history import Epoch, History
from ppl_gen.inference.labels import align_labels
from ppl_gen.inference.run import Run
from ppl_gen.inference.settings import Settings
from ppl_gen.inference.verdict import Finding, Verdict

__all__ = [
    "Candidate",
    "ClassifierTest",
    "Comparison",
    "Engine",
    "EngineComparison",
    "Epoch",
    "Evidence",
    "Finding",
    "History",
    "LeaveOneOut",
    "Run",
    "Settings",
    "TwoSample",
    "Verdict",
    "align_labels",
    "check",
    "classifier_test",
    "compare",
    "compare_engines",
    "doctor",
    "drawn_codes",
    "fit",
    "khat_threshold",
    "load",
    "log_evidence",
    "mmd",
    "mmd_test",
    "pareto_khat",
    "to_arviz",
]
