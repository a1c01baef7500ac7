"""What the findings of a verdict look like: figures from their details alone."""

from __future__ import annotations

import math
import textwrap

import numpy as np
import torch

from ppl_gen.inference.checks.calibration import (
    COVERAGE_WITHIN,
    LATENTS_WITHIN,
    LIKELIHOOD_WITHIN,
)
from ppl_gen.inference.checks.closeness import LIMITS
from ppl_gen.inference.checks.look import AGAINST, LEFT, MEANT
from ppl_gen.inference.checks.reference import SHIFT, STRETCH
from ppl_gen.inference.estimators.settled import before_the_fall
from ppl_gen.inference.verdict import Finding, Status
from ppl_gen.report import trust_figures as drawing
from ppl_gen.report.canvas import BAD, FIRST, MUTED, SECOND, drawable, legend
from ppl_gen.report.codes import WORST, Judged, worst
from ppl_gen.report.html import Markup, figure, joined, number, table, tag
from ppl_gen.report.trust_figures import Measured
from ppl_gen.report.verdict import badge
from ppl_gen.report.view import View

NAMED = 5  # data whose number stands in the figure
PANELS = 6
LATENTS = 40  # of more, those that are farthest off
SHOWN = 8  # statistics
TICKS = 20
LONGEST = 40
LINE, MOST_LINES = 36, 3  # of the name of a statistic
RANKS, BAND, CHAINS = "ECDF of ", "chance and limits of ", "shift, stretch and distance of "


def _found(view: View, name: str) -> Finding | None:
    """The finding of a name, if it was made."""
    findings = view.run.verdict.findings if view.run.verdict else ()
    return next((f for f in findings if f.check == name and f.measured), None)


def _details(view: View, name: str) -> dict[str, list[float]]:
    found = _found(view, name)
    return found.details if found else {}


def _named(details: dict[str, list[float]], start: str) -> dict[str, list[float]]:
    """The details whose names start so, by the rest of their names."""
    return {k.removeprefix(start): v for k, v in details.items() if k.startswith(start)}


def has_map(view: View) -> bool:
    """Whether k-hat of each datum is known."""
    return {"k-hat", "ess", "rows", "draws", "threshold"} <= _details(view, "k-hat").keys()


def trust_map(view: View) -> Markup:
    """K-hat and effective draws of each datum, and the worst data."""
    found = _details(view, "k-hat")
    khat, ess, rows = (np.array(found[name], dtype=float) for name in ("k-hat", "ess", "rows"))
    draws, threshold = found["draws"][0], found["threshold"][0]
    order = np.argsort(-khat, kind="stable")[:WORST].tolist()
    over = int((khat > threshold).sum())
    alt = (
        f"k-hat against effective draws of {len(khat)} data, and a histogram of k-hat; {over} are "
        "above the threshold"
    )
    named = [(i, f"{rows[i]:.0f}") for i in order[:NAMED] if khat[i] > threshold]
    drawn = drawing.trust_map(khat, ess, draws, threshold, named, alt)
    verdict = view.run.verdict
    assert verdict is not None
    which = "" if len(khat) == verdict.data else (
        f", of {verdict.data:,} taken evenly from the worst to the best,"
    )  # fmt: skip
    caption = (
        f"A dot is a datum. For {over} of {len(khat):,} data{which} k-hat is above "
        f"{threshold:.2f}, the lesser of 0.7 and 1 - 1 / log10 S at S = {draws:,.0f} draws: do not "
        "believe their latents, reweighed or not. The effective draws say how many of the draws "
        "carry the weight. Good: all dots left of the line, and high up. The rows that were "
        "checked are numbered from 0; figures beyond -0.5 and 1.5 are drawn there. "
        "Source: Vehtari et al. 2024."
    )
    marks = [(FIRST, "o", "within the limit"), (BAD, "^", "above it")]
    return joined([legend(marks), figure(drawn, caption), _worst(view, khat, ess, rows, order)])


def _worst(
    view: View, khat: drawing.Array, ess: drawing.Array, rows: drawing.Array, order: list[int]
) -> Markup:
    """The worst data, shown if the rows of the report are those that were checked."""
    verdict, part = view.run.verdict, view.shown.part
    assert verdict is not None
    if part is None or part.fingerprint != verdict.fingerprint:
        listed = [[f"{rows[i]:.0f}", number(khat[i], 3), f"{ess[i]:.0f}"] for i in order]
        why = "The rows that were checked are not at hand here, so that they are named alone."
        head = tag("h3", "The data with the largest k-hat")
        whole = table(("row", "k-hat", "effective draws"), listed, "numbers")
        return joined([head, whole, tag("p", why, class_="note")])
    other, places = view.beside(torch.tensor([int(rows[i]) for i in order]))
    judged = []
    for place, i in zip(places.tolist(), order, strict=True):
        row, source = f"{rows[i]:.0f}", str(other.number(place))
        name = row if row == source else f"{row} ({source} of the source)"
        judged.append(Judged(place, name, khat[i].item(), ess[i].item()))
    return worst(other, judged, int(_details(view, "k-hat")["draws"][0]))


def has_ranks(view: View) -> bool:
    """Whether truths were ranked among draws."""
    return bool(_named(_details(view, "calibration"), RANKS)) or has_coverage(view)


def has_coverage(view: View) -> bool:
    """Whether truths were counted in intervals."""
    found = _details(view, "coverage")
    return "levels" in found and bool(_named(found, "share of "))


def calibration(view: View) -> Markup:
    """Ranks of truths against the uniform law, and what intervals hold."""
    parts = []
    found = _details(view, "calibration")
    ranks = dict(list(_named(found, RANKS).items())[:PANELS])
    if ranks:
        at, lower, upper = (np.array(found[n]) for n in ("ECDF at", "band from", "band to"))
        titles, untold = _titles(list(ranks), "scalar")
        panels = [(t, np.array(v)) for t, v in zip(titles, ranks.values(), strict=True)]
        alt = f"ranks of truths among draws, less uniform, of {', '.join(titles)}"
        caption = (
            f"Of the {len(ranks)} scalars that are farthest off: the share of truths below each "
            "rank, less what an exact posterior has. Within the grey band lie exact ones, all "
            "along, in 95% of cases. A hill says that the guide's draws are too high, a valley "
            "that they are too low; first up, then down that they are too narrow, first down, then "
            "up too wide. Many ranks find out the least fault: the check warns of distances above "
            f"{LATENTS_WITHIN[0]:g}, of the log-likelihood above {LIKELIHOOD_WITHIN[0]:g}."
            f"{untold} Source: Säilynoja et al. 2022."
        )
        marks = [
            (FIRST, "line", "the guide"),
            (MUTED, "bar", "by chance"),
            (SECOND, "o", "outside"),
        ]
        whole = figure(drawing.ranks(panels, at, lower, upper, alt), caption)
        parts += [tag("h3", "Ranks of truths among draws"), legend(marks), whole]
    if has_coverage(view):
        found = _details(view, "coverage")
        shares = np.array(list(_named(found, "share of ").values()))
        levels = found["levels"]
        alt = f"shares of truths in central intervals of {len(shares)} scalars, less what is said"
        caption = (
            f"A dot is one of {len(shares)} scalars. Good: within the inner band; beyond the outer "
            "one it fails. Below 0 the intervals are too narrow, above too wide."
        )
        drawn = drawing.coverage(levels, shares, COVERAGE_WITHIN, alt)
        parts += [tag("h3", "What intervals hold"), figure(drawn, caption)]
    return joined(parts)


def has_bounds(view: View) -> bool:
    """Whether the evidence was found by annealing."""
    return "annealed" in _details(view, "divergence")


def sandwich(view: View) -> Markup:
    """Bounds of the evidence, and the parts of the divergence."""
    found = _details(view, "divergence")
    names = ("ELBO", "importance-weighted", "annealed")
    errors = found.get("errors of the three", [math.nan] * 3)
    bounds = [
        Measured(name, found[name][0], error) for name, error in zip(names, errors, strict=True)
    ]
    parts = []
    for name in ("divergence", "amortisation gap", "approximation gap"):
        if (one := _found(view, name)) is not None and math.isfinite(one.figure):
            error, bad = one.details.get("error", [math.nan])[0], one.status == "fail"
            parts.append(Measured(name, one.figure, error, bad, LIMITS[name]))
    told = ", ".join(f"{one.name} {number(one.value)}" for one in (*bounds, *parts))
    slack = found.get("slack on simulated data", [math.nan])[0]
    unit = "nats per datum" if view.run.structure.has_codes else "nats, of all data together"
    fitted = "to each datum" if view.run.structure.has_codes else "anew"
    caption = (
        "Left: the log evidence lies above all three bounds, but for their errors; the best of "
        "them less the first is the divergence of the guide from the posterior. Right: what of it "
        f"a guide of the same family, fitted {fitted}, would win (amortisation), and what its "
        f"family cannot say (approximation). In {unit}: {told}. Lines are two standard "
        "errors; dotted ticks stand where a figure begins to warn, solid ones where it fails. "
        "Good: short bars."
    )
    if not math.isfinite(errors[1]):
        caption += " The error of importance sampling is not known: k-hat is too high for it."
    if math.isfinite(slack):
        caption += (
            f" On data that the story made, chains that come back bring the bound to {slack:.2f} "
            "nats from above: so much may be missing."
        )
    caption += " Sources: Wu et al. 2017, Cremer et al. 2018."
    if not (parts and all(math.isfinite(one.value) for one in bounds)):
        return tag("p", caption, class_="note")
    drawn = drawing.sandwich(bounds, parts, unit, f"bounds of the evidence: {told}")
    return figure(drawn, caption)


def has_reference(view: View) -> bool:
    """Whether chains were run beside the guide."""
    return bool(_named(_details(view, "reference"), CHAINS))


def reference(view: View) -> Markup:
    """The guide's marginals beside those of chains."""
    every = _named(_details(view, "reference"), CHAINS)
    names, values = list(every), np.array(list(every.values()))
    off = np.maximum(np.abs(values[:, 0]) / SHIFT[1], np.abs(np.log(values[:, 1])) / math.log(1.2))
    kept = np.sort(np.argsort(-off, kind="stable")[:LATENTS])
    few = len(kept) < len(names)
    titles, untold = _titles([names[i] for i in kept], "latent")
    shown = titles if len(kept) <= TICKS else []
    alt = f"shift and stretch of {len(kept)} latents against Hamiltonian chains"
    caption = (
        ("The latents that are farthest off" if few else "Each latent")
        + ", the guide's draws beside those of Hamiltonian chains, averaged over rows. Good: "
        "within the inner bands; beyond the outer ones it fails. Below 1 the guide is too narrow."
        f"{untold if shown else ''}"
    )
    if not shown:
        farthest = ", ".join(names[i] for i in np.argsort(-off, kind="stable")[:5])
        caption += f" Farthest off: {farthest}."
    caption += " Source: Yao et al. 2018."
    limits = SHIFT, STRETCH
    marks = [(FIRST, "o", "a latent"), (BAD, "^", "one that fails")]
    drawn = drawing.marginals(shown, values[kept, 0], values[kept, 1], limits, alt)
    return joined([legend(marks), figure(drawn, caption)])


CHECKED = {
    "posterior predictive": "Replicated from the posterior",
    "prior predictive": "Made from scratch",
}


def has_statistics(view: View) -> bool:
    """Whether statistics of the data were held against those of replicates."""
    return any(_named(_details(view, name), BAND) for name in CHECKED)


def predictive(view: View) -> Markup:
    """Statistics of the data among those of replicates, the worst of them."""
    parts = [
        joined(
            [
                tag("h3", heading),
                _statistics(_details(view, name), heading),
                _left(_details(view, name)),
            ]
        )
        for name, heading in CHECKED.items()
        if _named(_details(view, name), BAND)
    ]
    marks = [
        (FIRST, "o", "the data, within the limits or (hollow) by chance"),
        (BAD, "^", "warns or fails"),
        (MUTED, "bar", "95% of replicates"),
    ]
    caption = (
        "Each statistic of the data, as far from the mean of replicates as the dot says, in units "
        "of the distance from which it warns (the table has the distance itself); ticks stand "
        "where it fails. A hollow dot lies beyond and passes all the same: of so many statistics "
        "of so few data some replicate goes as far. Good: dots within the shaded band, or hollow "
        "ones. Source: Gelman et al. 1996."
    )
    return joined([legend(marks), *parts, tag("p", caption, class_="note")])


def _statistics(details: dict[str, list[float]], heading: str) -> Markup:
    """The worst statistics, drawn and as a table; details are in the order of badness."""
    few = list(_named(details, BAND).items())[:SHOWN]
    titles, _ = _titles([name for name, _ in few], "statistic", MOST_LINES * LINE)
    titles = [textwrap.fill(title, LINE) for title in titles]
    rows, body = [], []
    for title, (name, (low, high, good, bad)) in zip(titles, few, strict=True):
        observed, replicated, distance, p_value = details[name]
        off = p_value < 0.05 and distance > good
        status: Status = "pass" if not off else "warn" if not distance > bad else "fail"
        place = math.copysign(distance, observed - replicated) / good
        chance = low / good, high / good
        limits, hollow = (1.0, bad / good), distance > good and not off
        rows.append(Measured(title, place, np.nan, off, limits, chance, hollow))
        figures = (number(v, 3) for v in (observed, replicated, distance))
        body.append([name, *figures, badge(status)])
    alt = f"{heading}: distances of {len(rows)} statistics of the data from replicates"
    head = ("statistic", "data", "replicates", "distance", "status")
    return joined([drawing.statistics(rows, alt), table(head, body, "numbers")])


def _left(details: dict[str, list[float]]) -> Markup:
    """What the story leaves of the data against what that goes with; nothing if it does not."""
    against, left = _named(details, AGAINST), _named(details, LEFT)
    if not against or not left:
        return joined([])
    (name, x), (site, y) = *against.items(), *left.items()
    ((group, marked),) = _named(details, MEANT).items()
    meant = np.array(marked, dtype=bool)
    axis = name if drawable(name, LONGEST) else "what is given"
    of = site if drawable(site, LONGEST) else "it"
    alt = f"what the story leaves of {len(x)} rows, against what it goes with"
    drawn = drawing.left(np.array(x), np.array(y), meant, axis, of, alt)
    which = f" Triangles, with a line of their own, are {group}." if meant.any() else ""
    caption = (
        f"What the story leaves of {site}, in standard deviations of it, against {name}: the "
        f"line joins means of tenths of the rows, or of each level.{which} Good: a level line at "
        "0, and as much scatter everywhere."
    )
    return figure(drawn, caption)


def has_steps(view: View) -> bool:
    """Whether the steps of the fit were recorded and judged."""
    iterates = view.run.iterates
    return _found(view, "settled") is not None and iterates is not None and len(iterates.rate) > 1


def settling(view: View) -> Markup:
    """What the steps climbed, and where the learning rate let them rest."""
    iterates, found = view.run.iterates, _found(view, "settled")
    assert iterates is not None
    assert found is not None
    steps, climbed, rate = (
        v.double().numpy() for v in (iterates.steps, iterates.climbed, iterates.rate)
    )
    warm = int((iterates.kl_weight != iterates.kl_weight[-1]).sum())
    fallen = before_the_fall(iterates.rate)
    matched = view.run.settings.objective not in ("auto", "elbo")
    title = f"{'objective' if matched else 'ELBO'} of the steps, nats per datum"
    alt = f"what {steps[-1]:,.0f} steps climbed, and their learning rate"
    caption = f"{found.meaning} Good: level, before the learning rate falls as well as after."
    if fallen < len(steps):
        caption += " The dashed line stands where it had halved: a falling rate calms anything."
    if warm:
        caption += " In the grey stretch the KL term had not its full weight yet."
    drawn = drawing.settling(steps, climbed, rate, warm, fallen, title, alt)
    marks = [(FIRST, "line", "means over blocks of steps"), (SECOND, "line", "learning rate")]
    return joined([legend(marks), figure(drawn, caption)])


def _titles(names: list[str], kind: str, longest: int = LONGEST) -> tuple[list[str], str]:
    """Names that can be drawn; others by number, and a sentence that says which they are."""
    titles = [
        name if drawable(name, longest) else f"{kind} {i + 1}" for i, name in enumerate(names)
    ]
    pairs = [f"{t} is {n}" for t, n in zip(titles, names, strict=True) if t != n]
    return titles, f" Here {'; '.join(pairs)}." if pairs else ""
