"""Pure functions of tensors and of densities: what the checks measure with."""

from ppl_gen.inference.estimators.evidence import (
    Evidence,
    khat_threshold,
    log_evidence,
    pareto_khat,
)
from ppl_gen.inference.estimators.settled import (
    Rise,
    Window,
    best_window,
    effective_size,
    heading,
    mcse,
    relapse,
    rhat,
    rise,
)
from ppl_gen.inference.estimators.two_sample import (
    ClassifierTest,
    TwoSample,
    classifier_test,
    mmd,
    mmd_test,
)

__all__ = [
    "ClassifierTest",
    "Evidence",
    "Rise",
    "TwoSample",
    "Window",
    "best_window",
    "classifier_test",
    "effective_size",
    "heading",
    "khat_threshold",
    "log_evidence",
    "mcse",
    "mmd",
    "mmd_test",
    "pareto_khat",
    "relapse",
    "rhat",
    "rise",
]
