"""``python -m ppl_gen`` is ``ppl-gen``."""

import sys

from ppl_gen.cli import main

if __name__ == "__main__":
    sys.exit(main())
