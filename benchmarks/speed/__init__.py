"""Speed and memory against peers, interleaved on the machine at hand.

    make bench                           # every comparison, into benchmarks/RESULTS.md
    make bench ROWS="vae gmm"            # some of them, printed only
    make bench QUICK=1                   # all in a short form, printed only

Every contender lives in a process of its own, so that thread pools, allocators and compilers do not
meet. A round asks each of them in random order for the same number of steps; a ratio is taken
within a round, and its median over rounds is what counts.
"""
