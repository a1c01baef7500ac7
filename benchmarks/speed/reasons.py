"""Why a comparison falls short of its bar, and what was tried, where that was looked into."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.speed.lines import Line

# By parts of the names of the work and of whom it is held against.
REASONS: dict[tuple[str, str], str] = {
    ("VAE step", "NumPyro"): (
        "Nearly all of either step is products of matrices, and those alone (the row of batch 256) "
        "take seven to nine tenths of NumPyro's. Ours has 14 where 11 would do, since location and "
        "scale of the code are two layers, and its optimiser is a call of its own, so that a loss "
        "that is not finite stops the fit before it spoils a weight. Tried, with gain: biases "
        "added after the products (5 %), gradients let go before the next are made (3 %). Tried, "
        "without: huge pages, other settings of the allocator, threads bound to cores. oneDNN's "
        "products were up to a third faster than MKL's in one shape of three and as much slower "
        "in another."
    ),
    ("VAE step", "Pyro's stock loop"): (
        "The loop's overhead is some 5 ms whatever the batch; with two cores' products as fast as "
        "these the rest of its step is products too, and they alone are up to two fifths of it at "
        "batch 256. See the row of the products for how near ours is to them."
    ),
    ("GMM by SVI, a step, full batch, the same program", ""): (
        "The program's own mathematics: three products of components by features squared by rows, "
        "two thirds of the step, and arrays of components by features by rows between them, which "
        "models.GMM does not have. Tried, with gain: triangular systems as products with the "
        "inverse (9.0 to 3.4 ms), outer products without batches of tiny matrices."
    ),
    ("GMM by SVI, a step, batches of 1,000", ""): (
        "A third of a millisecond of arithmetic in some 25 kernels, of which each costs its two "
        "threads some microseconds (with one thread it takes 0.07 ms longer), 0.06 ms of the "
        "optimiser's, and 0.04 ms around both. Tried, with gain: one product for distances and "
        "what centres subtract (0.62 to 0.48 ms), entries of triangular matrices by numbers in "
        "place of truth values (0.06 ms), triangular systems as products. Tried, without: threads "
        "that wait without sleeping."
    ),
    ("GMM by SVI, a step, full batch, models.GMM", ""): (
        "Two products of an array of components by features by rows, and three passes over it. "
        "Tried, with gain: rows last, what centres subtract as a column of the product."
    ),
    ("GMM by EM: 1,000,000 rows of 16", ""): (
        "Two thin products of 10 by 153 by rows are two thirds of a pass, at half the rate of "
        "square ones (25 and 48 GFLOP/s a core, double precision), and 8 steps are 9 passes. Two "
        "threads take 0.7 of the time of one, not half: they share the cache, and meet at the "
        "interpreter's lock for each of some 60 operations a chunk. Tried, with gain: products of "
        "features in two operations and data looked at once a pass (0.33 to 0.27 s a pass), "
        "chunks that fit the cache, each thread adding up runs of them. Tried, without: rows "
        "first, features of single precision (likelihoods that fall), settings of the allocator. "
        "Not done, since they would not reach it either: 12 rows in place of 10, for which MKL is "
        "a tenth faster; OpenBLAS's products by way of NumPy, of which one is a third faster and "
        "the other not."
    ),
}


def reasons(lines: Sequence[Line]) -> list[str]:
    """Why lines fall short of their bars: each reason once, after the names of its lines."""
    named: dict[str, list[str]] = {}
    for line in lines:
        if line.short:
            named.setdefault(_of(line), []).append(f"{line.work}, against {line.against}")
    return [f"{'; '.join(names)}: {reason}" for reason, names in named.items()]


def _of(line: Line) -> str:
    for (work, against), reason in REASONS.items():
        if work in line.work and against in line.against:
            return reason
    return "not looked into yet."
