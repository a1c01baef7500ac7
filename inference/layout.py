"""Where the draws, plates and values of a site stand among the dimensions of its tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pyro.distributions import ExpandedDistribution, Independent, MaskedDistribution
from torch import Tensor
from torch.distributions import kl_divergence

from ppl_gen.inference.structure import Structure

DRAWS = "_draws"

Node = Mapping[str, Any]


class Layout:
    """Brings what a trace holds into the form ``(S, *plates, *event)``.

    In a trace, batch dimensions are counted from the right; the draws, if there is a plate of them,
    stand to the left of the program's own plates.

    Args:
        structure: Sites and plates of the programs.
    """

    def __init__(self, structure: Structure) -> None:
        self.data_plates = structure.data_plates
        self.nesting = structure.nesting

    def is_local(self, node: Node) -> bool:
        """Whether a site stands inside a data plate."""
        return any(f.name in self.data_plates for f in node["cond_indep_stack"])

    def fits(self, node: Node) -> bool:
        """Whether a site's log-density has no more dimensions than draws and plates."""
        return log_prob(node).dim() <= 1 + self.nesting

    def value(self, node: Node, draws: int) -> Tensor:
        """A site's value, ``(S, *plates, *event)``, plates from the outermost dimension in."""
        return self._arranged(node["value"].detach(), node, len(node["fn"].event_shape), draws)

    def placed(self, value: Tensor, node: Node) -> Tensor:
        """What :meth:`value` gives, ``(S, *plates, *event)``, as it stands in a trace of draws."""
        frames = self._frames(node)
        batch = [1] * self.nesting
        for size, frame in zip(value.shape[1:], frames, strict=False):
            batch[frame.dim] = size
        return value.reshape(len(value), *batch, *value.shape[1 + len(frames) :])

    def mean(self, node: Node, draws: int) -> Tensor | None:
        """The mean of a site's law, ``(S, *plates, *event)``, or None if it has none."""
        mean = self.expected(node, draws)
        return None if mean is None or mean.isnan().any() else mean

    def expected(self, node: Node, draws: int) -> Tensor | None:
        """As :meth:`mean`, without a look at its values: they are NaN where there is no mean."""
        try:
            mean = node["fn"].mean
        except (NotImplementedError, AttributeError):
            return None
        if not isinstance(mean, Tensor):
            return None
        mean = torch.where(mean.isnan().any(), torch.nan, mean.detach())
        return self._arranged(mean, node, len(node["fn"].event_shape), draws)

    def terms(self, node: Node, draws: int) -> Tensor:
        """A site's log-density in nats, unscaled, ``(S, *plates)``."""
        return self._arranged(log_prob(node), node, 0, draws)

    def sums(self, nodes: Iterable[Node], draws: int, rows: int) -> tuple[Tensor, Tensor]:
        """Log-densities inside the data plate, summed to ``(S, N)``, and outside, to ``(S,)``."""
        inner, outer = torch.zeros(draws, rows), torch.zeros(draws)
        for node in nodes:
            inner, outer = self.added(inner, outer, node, self.terms(node, draws))
        return inner, outer

    def added(
        self, inner: Tensor, outer: Tensor, node: Node, terms: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Add a site's terms, ``(S, *plates)``, to the sums it belongs to."""
        names = [f.name for f in self._frames(node)]
        rows = next((i for i, name in enumerate(names) if name in self.data_plates), None)
        if rows is None:
            return inner, outer.to(terms.device) + terms.reshape(len(terms), -1).sum(1)
        others = [1 + i for i in range(len(names)) if i != rows]
        return inner.to(terms.device) + (terms.sum(others) if others else terms), outer

    def _frames(self, node: Node) -> list[Any]:
        frames = [f for f in node["cond_indep_stack"] if f.vectorized and f.name != DRAWS]
        return sorted(frames, key=lambda f: f.dim)

    def _arranged(self, tensor: Tensor, node: Node, events: int, draws: int) -> Tensor:
        split = tensor.dim() - events
        axes = 1 + self.nesting
        batch = [1] * (axes - split) + list(tensor.shape[:split])
        event = tensor.shape[split:]
        full = list(batch)
        for frame in self._frames(node):
            full[frame.dim] = frame.size if frame.size > 0 else batch[frame.dim]
        full[0] = draws
        kept = [full[0], *(full[f.dim] for f in self._frames(node))]
        return tensor.reshape(*batch, *event).expand(*full, *event).reshape(*kept, *event)


def log_prob(node: Node) -> Tensor:
    """A site's log-density in nats, masked but not scaled; NaN of a law that has none."""
    law, value = node["fn"], node["value"]
    try:
        term = law.log_prob(value)
    except NotImplementedError:
        dtype = torch.get_default_dtype()
        batch = value.shape[: value.dim() - len(law.event_shape)]
        term = torch.full(batch, torch.nan, dtype=dtype, device=value.device)
    mask = node["mask"]
    if mask is None:
        return term
    if isinstance(mask, bool):
        return term if mask else torch.zeros_like(term)
    return torch.where(mask, term, torch.zeros_like(term))


def element_mask(law: Any) -> Tensor | None:
    """Which elements of a value count in its log-density, where a law has a mask inside its event.

    Returns:
        Booleans that broadcast against a value; None if all elements count.
    """
    while isinstance(law, Independent | ExpandedDistribution):
        law = law.base_dist
    if not isinstance(law, MaskedDistribution) or not isinstance(law._mask, Tensor):
        return None
    return law._mask.reshape(law._mask.shape + (1,) * len(law.event_shape))


def counted_mask(node: Node) -> Tensor | None:
    """Which elements of a site's value count in its log-density; None if all do."""
    value, law, outer = node["value"], node["fn"], node["mask"]
    mask = element_mask(law)
    if outer is not None:
        outer = torch.as_tensor(outer, device=value.device)
        outer = outer.reshape(outer.shape + (1,) * len(law.event_shape))
        mask = outer if mask is None else mask & outer
    return None if mask is None else mask.expand_as(value)


def kl_per_dimension(guide: Node, model: Node) -> Tensor | None:
    """KL of guide from prior for each dimension of a value, in nats, where both factorise."""
    q, p = guide["fn"], model["fn"]
    if not (isinstance(q, Independent) and isinstance(p, Independent)):
        return None
    if q.base_dist.event_shape or p.base_dist.event_shape:
        return None
    value = guide["value"]
    try:
        divergence = kl_divergence(q.base_dist, p.base_dist)
    except NotImplementedError:
        divergence = q.base_dist.log_prob(value) - p.base_dist.log_prob(value)
    return divergence.expand_as(value) if value.dim() >= divergence.dim() else None
