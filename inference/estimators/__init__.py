"""Pure functions of tensors and of densities: what the checks measure with."""

from ppl_gen.inference.estimators.evidence import (
    Evidence,
    khat_threshold,
    log_evidence,
    pareto_khat,
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
    "TwoSample",
    "classifier_test",
    "khat_threshold",
    "log_evidence",
    "mmd",
    "mmd_test",
    "pareto_khat",
]
