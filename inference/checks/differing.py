"""Whether what is left of the observations goes with what is given: in its mean, or in its size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ppl_gen.inference.checks.look import BEFORE, EXPECTED, LIMITS, Drawn
from ppl_gen.inference.checks.statistic import LEADS, Statistic
from ppl_gen.inference.estimators.contrasts import FIFTHS, Contrast, effects, explained
from ppl_gen.inference.estimators.replicates import beyond_chance

SEVERAL, ALONE = 4, 0.75  # groups of which one may be told alone, and its share of what is off


@dataclass(frozen=True)
class Differs:
    """Mean and scatter may differ by what is given."""

    contrast: Contrast
    scatters: bool
    values: Tensor

    def of(self, x: Tensor) -> Tensor:
        return torch.stack(effects(x, self.contrast), 1)

    def compared(self, site: str, own: Tensor, drawn: Tensor) -> list[Statistic]:
        found = []
        both = self.scatters and len(self.contrast.names) == 1
        for i, name in enumerate(("mean", "scatter") if both else ("mean",)):
            value, chance, away = explained(own[0, i], drawn[:, i])
            found.append(
                Statistic(
                    f"{name} of {site} {self.contrast.name}",
                    "of what is left open",
                    LIMITS,
                    value.item(),
                    chance,
                    distance=beyond_chance(value, chance),
                    where=_farthest(away, self.contrast, name),
                    mend=_lacking(name, site, self.contrast) + _alone(away, self.contrast),
                    site=site,
                    lead=LEADS.index(self._lead(name)),
                )
            )
        return found

    def _lead(self, name: str) -> str:
        """Of what is expected the columns tell more surely, if they tell."""
        return "link" if self.contrast.names[0] == EXPECTED and name == "mean" else name

    def against(self, own: Tensor, drawn: Tensor, left: Tensor) -> Drawn:
        meant, called = torch.zeros_like(left), "none"
        if self.contrast.kind in ("groups", "slopes"):
            worst = int((own[0, 0] - drawn[:, 0].mean(0)).abs().amax(1).argmax())
            meant = (self.contrast.functions[:, worst] != 0).double()
            called = self.contrast.labels[worst]
        return self.contrast.names[-1], self.values, meant, called


def _farthest(away: Tensor, contrast: Contrast, name: str) -> str:
    """Where the data lie farthest from what the story makes; of a curve, how it goes."""
    if contrast.kind == "stretches" and name == "mean" and len(away) == FIFTHS:
        sizes = away[:, away.abs().amax(0).argmax()] / contrast.shares.sqrt()
        told = ", ".join(f"{size:+.2g}" for size in sizes.tolist())
        return f"from the least to the greatest fifth the data lie off by {told}"
    function, element = divmod(int(away.abs().argmax()), away.shape[1])
    size = away[function, element].item() / contrast.shares[function].item() ** 0.5
    words = {
        "scatter": ("more", "less"),
        "slopes": ("higher in slope", "lower in slope"),
        "product": ("more", "less"),
    }.get(contrast.kind if name == "mean" else name, ("higher", "lower"))
    return f"{contrast.labels[function]}: the data {abs(size):.2g} {words[size < 0]}"


def _lacking(name: str, site: str, contrast: Contrast) -> str:
    """What a story lacks whose data go otherwise with what it is given."""
    one, *others = contrast.names
    if one == EXPECTED and name == "mean":
        return (
            f"Let {site} follow what is known on another scale, as by another link or its "
            "logarithm, or let more of what is known work together."
        )
    if one == EXPECTED:
        return f"Let the scale of {site} go with its mean, as that of its logarithm does."
    if one.endswith(BEFORE):
        return f"Let {'the scale of ' * (name == 'scatter')}{site} depend on {one}, too."
    if name == "scatter":
        return f"Let the scale of {site} depend on {one}."
    if contrast.kind == "slopes":
        return f"Let each {one} have a slope of its own, by which {site} follows {others[0]}."
    if contrast.kind == "product":
        return f"Let {one} and {others[0]} work on {site} together, as by their product."
    if contrast.kind == "groups":
        return (
            f"Let each {one} have a level of {site} of its own; if it has one, see what keeps this "
            "from the data: its prior, or a fit that was too short."
        )
    return f"Let {site} follow {one} on another curve, as by its square, a hinge or a spline."


def _alone(away: Tensor, contrast: Contrast) -> str:
    """That a group is the only one to lie far off, if it is one of several."""
    sizes = away.square().sum(1)
    if contrast.kind not in ("groups", "slopes") or len(sizes) < SEVERAL:
        return ""
    worst = int(sizes.argmax())
    if sizes[worst] < ALONE * sizes.sum():
        return ""
    return f" Or see how {contrast.labels[worst]} was recorded: it alone is far off."
