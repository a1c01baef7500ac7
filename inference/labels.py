"""Labels of exchangeable components, made to agree from draw to draw.

The components of a mixture can change places without changing the story, so that the first of one
draw need not be the first of another. Here each draw is given the order that brings it nearest to
a centre, and the centre is the mean of the draws so ordered.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ppl_gen.errors import DataError
from ppl_gen.inference.dims import DRAW_DIMS

if TYPE_CHECKING:
    from xarray import DataArray, Dataset, DataTree

ROUNDS = 100
FLOOR = 1e-6  # least variance of a column around the centre, of its variance in all


@dataclass(frozen=True)
class Labels:
    """In which order each draw has its components.

    Attributes:
        dim: The dimension whose entries can change places.
        indices: Discrete variables whose values number its entries.
        order: Component ``order[s, k]`` of draw ``s`` becomes its component ``k``, ``(S, K)``.
    """

    dim: str
    indices: tuple[str, ...]
    order: Tensor

    def applied(self, name: str, value: Tensor, dims: Sequence[str], draws: slice) -> Tensor:
        """Draws of a variable with their components in order.

        Args:
            name: The variable.
            value: Some of its draws, ``(S, *)``.
            dims: Names of its dimensions after the first.
            draws: Which draws they are.
        """
        order = self.order[draws]
        if self.dim in dims:
            value = permuted(value, order, 1 + dims.index(self.dim))
        return renumbered(value, order) if name in self.indices else value


def component_table(values: Mapping[str, Tensor], axes: Mapping[str, int]) -> Tensor:
    """What each draw says of each component, a column for each number.

    Args:
        values: Draws by site, ``(S, ..., K, ...)`` each.
        axes: Of each site the axis of the components.

    Returns:
        Shape ``(S, K, F)``, in double precision. Over draws and components each column has mean 0
        and deviation 1, or is 0 if it never varies.

    Raises:
        DataError: If sites differ in their number of components, or a value is not finite.
    """
    moved = {name: v.detach().cpu().double().movedim(axes[name], 1) for name, v in values.items()}
    for name, value in moved.items():
        first, size = next((n, v.shape[1]) for n, v in moved.items())
        if value.shape[1] != size:
            raise DataError(
                f"sites must have equally many components, got {size} in {first!r} and "
                f"{value.shape[1]} in {name!r}"
            )
        if not value.isfinite().all():
            raise DataError(f"draws of {name!r} must be finite to be aligned, got NaN or infinity")
    table = torch.cat([v.reshape(*v.shape[:2], -1) for v in moved.values()], 2)
    table = table - table.mean((0, 1))
    spread = table.square().mean((0, 1)).sqrt()
    return table / torch.where(spread > 0, spread, torch.ones_like(spread))


@dataclass(frozen=True)
class Centre:
    """Where the components of aligned draws lie.

    Attributes:
        loc: Means over draws, ``(K, F)``.
        variance: Of the columns around them, ``(F,)``.
    """

    loc: Tensor
    variance: Tensor

    @classmethod
    def of(cls, table: Tensor, order: Tensor) -> Centre:
        """That of draws, ``(S, K, F)``, in their orders, ``(S, K)``."""
        aligned = permuted(table, order, 1)
        loc = aligned.mean(0)
        variance = (aligned - loc).square().mean((0, 1))
        return cls(loc, variance.clamp(min=FLOOR))

    @property
    def misfit(self) -> float:
        """How far draws lie from it: their lowest negative log-likelihood, up to a constant."""
        return self.variance.log().sum().item()


def relabelling(table: Tensor) -> tuple[Tensor, Centre]:
    r"""The orders in which draws are nearest to their common centre, and that centre.

    .. math:: \min_{\pi, c, v} \; \sum_f \Big( S K \log v_f +
        \sum_{s,k} \frac{(x_{s \pi_s(k) f} - c_{kf})^2}{v_f} \Big)

    No unit dominates, as each column is divided by its deviation around the centre; nor does a
    column in which components do not differ drown one in which they do.

    As in K-means, orders and centre are found in turn until nothing changes, which is a minimum
    but perhaps not the lowest. There are two starts, of which the one that ends lower counts: the
    labels as they are, right where they hardly switch, as under most guides, and the labels of the
    first draw, right where they do, as under a sampler.

    Args:
        table: Draws of components, ``(S, K, F)``; see :func:`component_table`.

    Returns:
        ``order``, ``(S, K)``: component ``order[s, k]`` of draw ``s`` is its ``k``-th; and the
        centre of the draws in this order.

    Reference:
        The iteration is that of Stephens (2000), https://doi.org/10.1111/1467-9868.00265, its loss
        a normal law around the centre; Papastamoulis (2016) compares the choices,
        https://doi.org/10.18637/jss.v069.c01
    """
    draws, components, _ = table.shape
    as_drawn = torch.arange(components).expand(draws, components)
    first = Centre(table[0], torch.ones_like(table[0, 0]))
    order, centre = _settled(table, as_drawn)
    other, other_centre = _settled(table, nearest_order(table, first))
    if other_centre.misfit < centre.misfit - 1e-9:
        return other, other_centre
    return order, centre


def nearest_order(table: Tensor, centre: Centre) -> Tensor:
    """The order of the components of each draw that brings it nearest to a centre.

    Args:
        table: Draws of components, ``(S, K, F)``.
        centre: Where they should lie.

    Returns:
        Component ``order[s, k]`` of draw ``s`` goes with the centre's ``k``, ``(S, K)``.

    Reference:
        The assignment problem, as scipy solves it: Crouse (2016),
        https://doi.org/10.1109/TAES.2016.140952
    """
    from scipy.optimize import linear_sum_assignment

    # Of the squared distances only the products depend on the order.
    likeness = torch.einsum("kf,sjf->skj", centre.loc / centre.variance, table).numpy()
    orders = [linear_sum_assignment(one, maximize=True)[1].tolist() for one in likeness]
    return torch.tensor(orders, dtype=torch.long)


def permuted(value: Tensor, order: Tensor, axis: int) -> Tensor:
    """Draws ``(S, *)`` whose entries along an axis stand in the order, ``(S, K)``, of each draw."""
    moved = value.movedim(axis, 1)
    index = order.to(value.device).reshape(*order.shape, *[1] * (moved.dim() - 2))
    return moved.gather(1, index.expand_as(moved)).movedim(1, axis)


def renumbered(value: Tensor, order: Tensor) -> Tensor:
    """Draws ``(S, *)`` of numbers of components, once those stand in the order of each draw."""
    new = order.argsort(1).to(value.device)
    flat = value.reshape(len(value), -1).long()
    return new.gather(1, flat).reshape(value.shape).to(value.dtype)


def align_labels(
    tree: DataTree,
    like: DataTree | None = None,
    dim: str = "components",
    *,
    var_names: Collection[str] | None = None,
    indices: Collection[str] | None = None,
) -> DataTree:
    """Give exchangeable components the same order in every draw.

    Serves any tree in ArviZ's schema, whether of :meth:`ppl_gen.Run.posterior`, which does it
    already for a story that says what is ``exchangeable``, or of a sampler whose chains have
    switched labels::

        tree = pg.align_labels(tree)                # chains and draws agree with each other
        tree = pg.align_labels(tree, like=earlier)  # and with those of another run

    The order of a draw is found on its posterior and goes for every group that holds the same
    draws. Groups of the prior stay as they are: there no component is told from another. See
    :func:`ppl_gen.inference.labels.relabelling` for what is made smallest.

    Args:
        tree: The draws, with dimensions ``(chain, draw)``.
        like: Draws of the same variables whose labels to take over; they may be those of another
            number of draws.
        dim: The dimension whose entries can change places.
        var_names: Variables to compare components by; by default all of the posterior that have
            the dimension once, and numbers that are not whole.
        indices: Variables whose values number the components, from 0; by default those that the
            tree says are of the kind, in its attribute ``indices``.

    Returns:
        A new tree; the one given stays as it is.

    Raises:
        DataError: If a group, a dimension or a variable is missing, or ``like`` has other
            components.
    """
    posterior = _posterior(tree, "tree")
    other = None if like is None else _posterior(like, "like")
    names = _compared(posterior, other, dim, var_names)
    draws = _draws_of(posterior, names, dim)
    if other is None:
        order, _ = relabelling(component_table(draws, dict.fromkeys(names, 1)))
    else:
        given = _draws_of(other, names, dim)
        both = _joined(given, draws)
        first = len(next(iter(given.values())))
        table = component_table(both, dict.fromkeys(names, 1))
        order = nearest_order(table[first:], relabelling(table[:first])[1])
    numbered = _numbered(posterior, indices)
    labels = Labels(dim, numbered, order)
    groups = {
        path: _relabelled(group, labels, posterior) if _is_of_posterior(path) else group
        for path, group in tree.to_dict().items()
    }
    return type(tree).from_dict(groups, name=tree.name)


def _settled(table: Tensor, order: Tensor) -> tuple[Tensor, Centre]:
    """Orders and their centre, found in turn from first orders until nothing changes."""
    centre = Centre.of(table, order)
    for _ in range(ROUNDS):
        last, order = order, nearest_order(table, centre)
        if torch.equal(order, last):
            break
        centre = Centre.of(table, order)
    return order, centre


def _posterior(tree: DataTree, named: str) -> Dataset:
    if "posterior" not in tree.children:
        raise DataError(
            f"{named} must have a group 'posterior', got {', '.join(tree.children) or 'none'}"
        )
    return tree["posterior"].to_dataset()


def _compared(
    posterior: Dataset, other: Dataset | None, dim: str, var_names: Collection[str] | None
) -> list[str]:
    """The variables to compare components by."""
    needed = (*DRAW_DIMS, dim)
    found = [
        str(name)
        for name, variable in posterior.data_vars.items()
        if all(variable.dims.count(d) == 1 for d in needed) and variable.dtype.kind == "f"
    ]
    if var_names is not None:
        for name in var_names:
            if name not in found:
                raise DataError(
                    f"var_names must be variables of the posterior with dimensions chain, draw "
                    f"and {dim}, got {name!r}: there are {', '.join(found) or 'none'}"
                )
        found = list(var_names)
    if not found:
        raise DataError(
            f"the posterior must have a variable with dimensions chain, draw and {dim!r} to align "
            f"by, got dimensions {', '.join(map(str, posterior.dims))}: name the one whose entries "
            "can change places with dim="
        )
    if other is not None:
        for name in found:
            mine = {d: s for d, s in posterior[name].sizes.items() if d not in DRAW_DIMS}
            shared = other.get(name)
            theirs = {} if shared is None else dict(shared.sizes)
            if mine != {d: s for d, s in theirs.items() if d not in DRAW_DIMS}:
                raise DataError(
                    f"like must have {name!r} with sizes {mine}, got {theirs or 'no such variable'}"
                    ": align by variables that both have, with var_names="
                )
    return found


def _draws_of(posterior: Dataset, names: Sequence[str], dim: str) -> dict[str, Tensor]:
    """Draws of each variable, those of all chains one after the other, ``(S, K, *)``."""
    found = {}
    for name in names:
        variable = posterior[name]
        rest = sorted(str(d) for d in variable.dims if d not in (*DRAW_DIMS, dim))
        values = torch.tensor(variable.transpose(*DRAW_DIMS, dim, *rest).values)
        found[name] = values.flatten(0, 1)
    return found


def _joined(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.cat([value.double(), second[name]]) for name, value in first.items()}


def _numbered(posterior: Dataset, indices: Collection[str] | None) -> tuple[str, ...]:
    if indices is None:
        said = str(posterior.attrs.get("indices", "")).split()
        return tuple(name for name in said if name in posterior)
    for name in indices:
        if name not in posterior or posterior[name].dtype.kind not in "iu":
            raise DataError(
                f"indices must be variables of the posterior with whole numbers, got {name!r}"
            )
    return tuple(indices)


def _is_of_posterior(path: str) -> bool:
    """Whether a group can hold the draws of the posterior: the prior's and warm-up's do not."""
    name = path.strip("/")
    return "prior" not in name and not name.startswith("warmup")


def _relabelled(group: Dataset, labels: Labels, posterior: Dataset) -> Dataset:
    changed = {}
    for name, variable in group.data_vars.items():
        same = all(variable.sizes.get(d) == posterior.sizes[d] for d in DRAW_DIMS)
        if same and (labels.dim in variable.dims or name in labels.indices):
            changed[name] = _reordered(str(name), variable, labels)
    return group.assign(changed) if changed else group


def _reordered(name: str, variable: DataArray, labels: Labels) -> DataArray:
    moved = variable.transpose(*DRAW_DIMS, ...)
    rest = [str(d) for d in moved.dims[2:]]
    values = torch.tensor(moved.values)
    aligned = labels.applied(name, values.flatten(0, 1), rest, slice(None))
    data = aligned.reshape(values.shape).numpy()
    return moved.copy(data=data).transpose(*variable.dims)
