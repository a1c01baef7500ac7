"""The checks: each looks at a fitted run from one side and says what it found.

Thresholds that have no published source are ours, and say so. Every check that cannot be made is
reported as skipped, with the reason; it never passes for lack of evidence.
"""

from ppl_gen.inference.checks.check import CHECKS, check
from ppl_gen.inference.checks.subject import Check, Cost, Level, Subject

__all__ = ["CHECKS", "Check", "Cost", "Level", "Subject", "check"]
