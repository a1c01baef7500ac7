"""Could each observation be one more draw from what the story expects of it?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ppl_gen.inference.checks import advice
from ppl_gen.inference.checks.observations import by_row, entries, observed_rows
from ppl_gen.inference.checks.predictive import inflation
from ppl_gen.inference.checks.scales import learns_scale
from ppl_gen.inference.checks.subject import Check, Cost, Subject
from ppl_gen.inference.estimators.pit import (
    KolmogorovTest,
    kolmogorov_test,
    leave_one_out,
    transforms,
)
from ppl_gen.inference.estimators.replicates import FEW_ELEMENTS
from ppl_gen.inference.passes import plan
from ppl_gen.inference.sampler import Sampler
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.verdict import Finding, Status, grade

ROWS = 2000
DRAWS = 1000  # of what all rows share, from which the weights of leave-one-out are made
OWN_DRAWS = 400  # of what each row has of its own
LEAST_DRAWS = 100
LEAST_ROWS = 100  # below, the distance that chance makes is beyond what we call a fault
KHAT = 0.7
DISTRUSTED = 0.2
COLUMNS, IMAGES = (0.07, 0.15), (0.07, 0.25)
CHANCE = 0.05


def loo_pit(subject: Subject) -> Finding:
    r"""How far the probability integral transforms of the observations are from uniform.

    Each observed number is compared with draws of what the story expects of it without having seen
    it. Where all latents are shared by the rows, these are draws of the posterior without the row,
    :math:`p(x_n \mid x_{-n})`, by Pareto-smoothed importance sampling if the row is of the fit.
    Where a row has latents of its own, leaving it out gives these back to their prior: the draws
    are then of :math:`p(x_n)`, or of :math:`p(x_n \mid c_n)` under a condition, and what the rows
    share comes from the guide.

    The figure is the largest Kolmogorov distance of any element. It passes up to 0.07, or if chance
    makes as much in 5 % of cases, and fails beyond 0.15: a deviation that is wrong by a factor of 2
    gives 0.16, a mean that is off by half a deviation 0.20, and honest fits gave up to 0.11. Of
    more than 20 elements (pixels) their sum is looked at, as the law of a single pixel says little,
    and it fails beyond 0.25: honest fits of digits gave up to 0.14 (our limits). P-values are
    multiplied by the number of elements.

    References:
        Gelman et al. (2013), Bayesian Data Analysis, section 7.1; Vehtari et al. (2017),
        https://arxiv.org/abs/1507.04544; computed by ArviZ, as for its ``plot_loo_pit``
    """
    name, structure = "LOO-PIT", subject.run.structure
    local = any(site.local for site in structure.latents)
    draws = min(subject.draws, OWN_DRAWS if local else DRAWS)
    reason = ""
    if not subject.batch or not any(site.local for site in structure.observed):
        reason = "The story binds no rows of data."
    elif subject.rows < LEAST_ROWS:
        reason = f"Needs at least {LEAST_ROWS} data, got {subject.rows}."
    elif draws < LEAST_DRAWS:
        reason = f"Needs at least {LEAST_DRAWS} draws, got {draws}."
    if reason:
        return subject.skipped(name, reason)
    points = all(site.point for site in structure.latents)
    leaves_out = not local and not points and subject.is_of_the_fit
    found, site_of, khat = _transformed(subject, draws, local, leaves_out)
    distrusted = (khat > KHAT).double().mean().item() if leaves_out else 0.0
    if distrusted > DISTRUSTED:
        reason = (
            f"The posterior without a row is too far from the draws for {distrusted:.0%} of the "
            "rows: check on rows that the story has not seen."
        )
        return subject.skipped(name, reason)
    tests = {
        element: kolmogorov_test(values[~values.isnan()], inflation(subject))
        for element, values in found.items()
        if int((~values.isnan()).sum()) >= LEAST_ROWS
    }
    if not tests:
        return subject.skipped(name, f"Needs at least {LEAST_ROWS} data that are not missing.")
    summed = any(element.startswith("sum of") for element in tests)
    return uniform(
        tests,
        IMAGES if summed else COLUMNS,
        lambda worst, test: _remedy(subject, site_of[worst], test),
        distrusted,
    )


def uniform(
    tests: dict[str, KolmogorovTest],
    limits: tuple[float, float],
    remedy: Callable[[str, KolmogorovTest], str],
    distrusted: float = 0.0,
) -> Finding:
    """The finding of some elements' tests, by name; see :func:`loo_pit`.

    Args:
        tests: Of each element.
        limits: Up to which distance it passes, and warns.
        remedy: What to do about one that is off, by its name.
        distrusted: Share of rows whose k-hat is above 0.7.
    """

    def judged(test: KolmogorovTest) -> Status:
        chance = min(1.0, len(tests) * test.p_value) >= CHANCE
        return "pass" if chance else grade(test.distance, *limits)

    order = ["pass", "warn", "fail"]
    worst = max(tests, key=lambda n: (order.index(judged(tests[n])), tests[n].distance))
    status = judged(tests[worst])
    return Finding(
        "LOO-PIT",
        tests[worst].distance,
        "distance",
        f"at most {limits[0]:g}, or by chance",
        status,
        "Each observation could be one more draw from what the story expects of it."
        if status == "pass"
        else f"The {worst} is {_otherwise(tests[worst])} than the story expects of a row that it "
        f"has not seen: a share of up to {tests[worst].distance:.0%} of the rows lies elsewhere.",
        "" if status == "pass" else remedy(worst, tests[worst]),
        "Gelman et al. 2013; Vehtari et al. 2017",
        {
            "distrusted": [distrusted],
            **{f"distance of {n}": [t.distance, t.p_value] for n, t in tests.items()},
        },
    )


def _otherwise(test: KolmogorovTest) -> str:
    """In which way values are distributed otherwise than is expected."""
    if _is_shifted(test):
        return "higher" if test.shift > 0 else "lower"
    return "more spread out" if test.spread > 0 else "less spread out"


def _is_shifted(test: KolmogorovTest) -> bool:
    return abs(test.shift) >= abs(test.spread)


def _remedy(subject: Subject, site: str, test: KolmogorovTest) -> str:
    """What to do where a site's values are distributed otherwise than is expected."""
    structure = subject.run.structure
    if structure.has_codes:
        change = advice.Advice.of(subject.run)
        return f"If the posterior predictive is well, {change.prior}; if not, see there."
    if _is_shifted(test):
        return f"Let the story tell the mean of {site} by more of what is known."
    law, learned = structure.sites[site].law, learns_scale(subject, site)
    if learned:
        return (
            f"The scale of {site} is learned: give it a law of another shape, such as StudentT of "
            "heavier tails or a mixture, or let its scale depend on what is known."
        )
    return advice.spread(site, law, test.spread > 0, codes=False, learned=learned)


def _transformed(
    subject: Subject, draws: int, local: bool, leaves_out: bool
) -> tuple[dict[str, Tensor], dict[str, str], Tensor]:
    """The transforms of each element, ``(N,)``, its site, and k-hat of each row."""
    run, structure = subject.run, subject.run.structure
    _, batch = subject.some(ROWS)
    data = observed_rows(subject, batch, counted=True)
    sites = [site.name for site in structure.observed if site.local]
    found: dict[str, list[Tensor]] = {name: [] for name in sites}
    shapes: list[Tensor] = []
    with run.pair.active(), seeded(subject.seed):
        sampler = Sampler(run.pair, structure, run.kwargs)
        window = sampler.window
        rows, together = plan(sampler, batch, draws, subject.memory, predict=True)
        rows = max(1, rows * together // draws)
        with window.showing(batch, next(window.slices(batch, rows))) as shown:
            fixed = sampler.draw_globals(shown, draws)
        done = 0
        for part in window.slices(batch, rows):
            with window.showing(batch, part) as shown:
                weights = None
                if local:
                    drawn = sampler.draw_prior(shown, draws, fixed=fixed)[1]
                else:
                    both = sampler.draw(shown, draws, fixed, predict=True)
                    drawn = both.predicted
                    if leaves_out:
                        weights, khat = leave_one_out(both.log_p.cpu())
                        shapes.append(khat)
            for name in sites:
                value = by_row(sampler, name, drawn[name]).cpu().double()
                value = value.reshape(*value.shape[:2], -1)
                seen = data[name][done : done + value.shape[1]].reshape(value.shape[1:])
                if value.shape[2] > FEW_ELEMENTS:
                    value = torch.where(seen.isnan(), 0.0, value).sum(2, keepdim=True)
                    seen = seen.nan_to_num().sum(1, keepdim=True)
                found[name].append(transforms(seen, value, weights, subject.seed + done))
            done += found[sites[0]][-1].shape[0]
            subject.tell(done / len(data[sites[0]]))
    named, site_of = dict[str, Tensor](), dict[str, str]()
    for name in sites:
        values = torch.cat(found[name])
        count = data[name][0].numel()
        if count > FEW_ELEMENTS:
            told = [f"sum of the {count} elements of {name}"]
        else:
            told = entries(subject, name, count)
        named.update(zip(told, values.T, strict=True))
        site_of.update(dict.fromkeys(told, name))
    return named, site_of, torch.cat(shapes) if shapes else torch.zeros(0)


LOO_PIT = Check(
    "could each observation be one more draw",
    ("LOO-PIT",),
    lambda subject: [loo_pit(subject)],
    lambda subject: Cost(
        f"{min(subject.draws, DRAWS):,} draws of {min(subject.rows, ROWS):,} rows",
        min(subject.draws, DRAWS) * min(subject.rows, ROWS),
    ),
    "full",
)
