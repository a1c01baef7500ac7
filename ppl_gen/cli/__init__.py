"""The command line: ``ppl-gen``, or ``python -m ppl_gen``.

Results go to the standard output, everything else to the standard error.
"""

from ppl_gen.cli.app import main

__all__ = ["main"]
