"""Of a mixture: are all components there, each once, and do they agree with EM?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ppl_gen.data import as_part
from ppl_gen.inference.checks.subject import Check, Cost, Subject
from ppl_gen.inference.labels import component_table, relabelling
from ppl_gen.inference.sampler import Sampler
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.structure import Structure
from ppl_gen.inference.verdict import Finding, Status, grade
from ppl_gen.story import Maximisable

if TYPE_CHECKING:
    from ppl_gen.inference.run import Run

RESTARTS = 5
DRAWS = 200
# Components whose responsibilities are so much alike are one component twice; with fewer rows than
# this one is empty. Both are ours.
ALIKE = 0.9
EMPTY = 1.0
NAMES = ("components", "agreement with EM")


@runtime_checkable
class Mixture(Protocol):
    """A story whose observations come from one of K components."""

    @property
    def weights(self) -> Tensor:
        """Probabilities of the components, ``(K,)``."""
        ...

    def predict_proba(self, x: Tensor) -> Tensor:
        """The probability of each component, ``(N, K)``."""
        ...

    def score_samples(self, x: Tensor) -> Tensor:
        """The log-density of each observation, in nats, ``(N,)``."""
        ...


def in_use(weights: Tensor, shares: Tensor, rows: int, switched: float) -> Finding:
    r"""How many components a mixture makes use of.

    The figure is the effective number, :math:`\exp(-\sum_k w_k \log w_k)`. It warns of components
    that have less than one row of the fit; of two that share their rows, so that they are one,
    where the cosine of their responsibilities is above 0.9; and of labels that change places among
    the draws of the posterior. It fails where less than half of the components are left (our
    limits).

    Args:
        weights: Probabilities, ``(K,)``.
        shares: Responsibilities of some rows, ``(N, K)``.
        rows: How many rows the fit had.
        switched: Share of posterior draws whose components stand in another order than most; NaN
            if that is not known.

    References:
        The effective number: Hill (1973), https://doi.org/10.2307/1934352; labels: Stephens (2000),
        https://doi.org/10.1111/1467-9868.00265
    """
    weights, total = weights.double(), len(weights)
    effective = torch.special.entr(weights).sum().exp().item()
    empty = (weights * rows < EMPTY).nonzero().flatten().tolist()
    unit = shares.double() / shares.double().norm(dim=0).clamp_min(1e-12)
    alike = (unit.T @ unit).triu(1)
    alike[empty] = alike[:, empty] = 0.0
    twice = [(int(i), int(j)) for i, j in (alike > ALIKE).nonzero()]
    left = total - len(empty) - len({j for _, j in twice})
    said = [f"{left} of {total} components are in use, as {effective:.1f} of equal weight would be"]
    if empty:
        said.append(f"components {_listed(empty)} are empty")
    said += [f"components {i} and {j} are one component twice" for i, j in twice[:3]]
    if switched > 0.05:
        said.append(f"labels change places in {switched:.0%} of the draws")
    status: Status = "pass" if len(said) == 1 else "warn" if left >= total / 2 else "fail"
    return Finding(
        "components",
        effective,
        f"of {total}",
        "none empty, none twice",
        status,
        "; ".join(said) + ".",
        ""
        if status == "pass"
        else "Take components='auto', or fewer; see whether more restarts of EM find others."
        if empty or twice
        else "Compare draws once pg.align_labels has put them in order.",
        "Hill 1973; Stephens 2000",
        {"weights": weights.tolist(), "switched": [switched]},
    )


def against_em(own: float, climbed: float, restarted: float, error: float) -> Finding:
    """How far the centre of the posterior lies below what EM finds, in nats per datum.

    EM climbs the likelihood from where the fit ended, and from new starts. It passes up to 0.02
    nats per datum, and fails beyond 0.1 (our limits); differences within twice their own standard
    error over rows are let pass.

    Args:
        own: Mean log-density of the rows at the centre of the posterior, in nats.
        climbed: The same once EM has gone on from there.
        restarted: The best of EM's own starts.
        error: Standard error of the difference over rows.

    Reference:
        Dempster et al. (1977), https://doi.org/10.1111/j.2517-6161.1977.tb01600.x
    """
    best = max(climbed, restarted)
    figure = best - own
    status = grade(figure - 2 * error, 0.02, 0.1)
    elsewhere = restarted > climbed + max(0.02, 2 * error)
    return Finding(
        "agreement with EM",
        figure,
        "nats",
        "at most 0.02 nats",
        status,
        f"EM finds parameters under which a datum has {figure:.3f} nats more"
        + (", from another start" if elsewhere else "")
        + ".",
        ""
        if status == "pass"
        else "Begin from there: top = fit(story, x, method='em'), then fit(top.story, x, "
        "warm_start=True)."
        if elsewhere
        else "Fit for longer.",
        "Dempster et al. 1977",
        {"own": [own], "EM from here": [climbed], "EM from new starts": [restarted]},
    )


def components(subject: Subject) -> list[Finding]:
    """What is there to say of a mixture; see :func:`in_use` and :func:`against_em`."""
    run, story = subject.run, subject.run.story
    if not isinstance(story, Mixture):
        reason = "The story is no mixture."
        return [subject.skipped(name, reason, "not applicable") for name in NAMES]
    with run.pair.active(), torch.no_grad():
        used = in_use(
            story.weights.detach().cpu(),
            story.predict_proba(subject.batch[0]).detach().cpu(),
            run.data.rows,
            _switched(subject),
        )
    return [used, _em(subject)]


def _em(subject: Subject) -> Finding:
    """The same rows under EM, which is given the data of the fit."""
    from ppl_gen.inference.fit import fit

    run, name = subject.run, NAMES[1]
    train = subject.data if subject.is_of_the_fit else subject.train
    if not isinstance(run.story, Maximisable):
        return subject.skipped(name, "The story has no EM.", "not applicable")
    if run.settings.method == "em":
        reason = "The fit is EM's own; how it ended is said by 'settled'."
        return subject.skipped(name, reason, "not applicable")
    if train is None:
        return subject.skipped(name, "Needs the data of the fit: check(run, x, train=...).")
    rows = as_part(train)
    options: dict[str, Any] = {"method": "em", "seed": subject.seed, "progress": False}
    subject.tell(0.2)
    climbed = fit(run.pair, rows, warm_start=True, **options)
    subject.tell(0.5)
    restarted = fit(run.pair, rows, restarts=RESTARTS, **options)
    x = run.batch(rows)[0]
    scores = [_scores(found, x) for found in (run, climbed, restarted)]
    best = max(scores[1:], key=lambda score: score.mean().item())
    error = (best - scores[0]).std().item() / math.sqrt(len(best))
    here, there, anew = (score.mean().item() for score in scores)
    return against_em(here, there, anew, error)


def _scores(run: Run, x: Tensor) -> Tensor:
    with run.pair.active(), torch.no_grad():
        return run.story.score_samples(x).double()


def _switched(subject: Subject) -> float:
    """Share of the guide's draws whose components stand in another order than in most."""
    run = subject.run
    axes = component_axes(run.structure, getattr(run.story, "exchangeable", None))
    if not axes:
        return math.nan
    with seeded(subject.seed):
        sampler = Sampler(run.pair, run.structure, run.kwargs)
        part = next(sampler.window.slices(subject.batch, 4))
        with sampler.window.showing(subject.batch, part) as shown:
            drawn = sampler.draw(shown, DRAWS).latents
    order, _ = relabelling(component_table({name: drawn[name] for name in axes}, axes))
    _, counts = order.unique(dim=0, return_counts=True)
    return 1 - counts.max().item() / len(order)


def component_axes(structure: Structure, plate: str | None) -> dict[str, int]:
    """Of the global sites in the plate of components, the axis of their draws that they are on."""
    return {
        site.name: 1 + site.plates.index(plate)
        for site in structure.latents
        if plate in site.plates and not (site.local or site.point)
    }


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:5]))
    return shown + (" and more" if len(numbers) > 5 else "")


COMPONENTS = Check(
    "are all components of the mixture there, each once",
    NAMES,
    components,
    lambda subject: (
        Cost(f"{1 + RESTARTS} fits by EM")
        if isinstance(subject.run.story, Mixture) and isinstance(subject.run.story, Maximisable)
        else Cost("")
    ),
    level="full",
)
