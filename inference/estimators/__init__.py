"""Pure functions of tensors and of densities: what the checks measure with."""

from ppl_gen.inference.estimators.copies import CopyTest, NoveltyTest, copy_test, novelty_test
from ppl_gen.inference.estimators.evidence import (
    Evidence,
    khat_threshold,
    log_evidence,
    pareto_khat,
)
from ppl_gen.inference.estimators.labels import LabelTest, label_test
from ppl_gen.inference.estimators.pit import (
    KolmogorovTest,
    kolmogorov_test,
    leave_one_out,
    transforms,
)
from ppl_gen.inference.estimators.replicates import ReplicateTest, replicate_test
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
    "CopyTest",
    "Evidence",
    "KolmogorovTest",
    "LabelTest",
    "NoveltyTest",
    "ReplicateTest",
    "Rise",
    "TwoSample",
    "Window",
    "best_window",
    "classifier_test",
    "copy_test",
    "effective_size",
    "heading",
    "khat_threshold",
    "kolmogorov_test",
    "label_test",
    "leave_one_out",
    "log_evidence",
    "mcse",
    "mmd",
    "mmd_test",
    "novelty_test",
    "pareto_khat",
    "relapse",
    "replicate_test",
    "rhat",
    "rise",
    "transforms",
]
