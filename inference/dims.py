"""What the dimensions of a site are called in the tree of draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ppl_gen.errors import DataError
from ppl_gen.inference.structure import Structure

DRAW_DIMS = ("chain", "draw")


def event_dims(
    structure: Structure, own: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, tuple[str, ...]]:
    """Names of the dimensions of one value of every site, ``z_dim_0`` and so on by default.

    Args:
        structure: The sites.
        own: What the story calls them, by site; sites that it has not are passed over.
        given: What the user calls them, by site.

    Raises:
        DataError: If a site is unknown, names are too few or too many, or a name is taken.
    """
    for name in given:
        if name not in structure.sites:
            raise DataError(
                f"dims must be of sites of the story, got {name!r}: there are "
                f"{', '.join(structure.sites)}"
            )
    chosen = {**own, **given}
    dims = {}
    for name, site in structure.sites.items():
        count = len(site.event_shape)
        if name not in chosen:
            dims[name] = tuple(f"{name}_dim_{i}" for i in range(count))
            continue
        names = chosen[name]
        if isinstance(names, str) or not all(isinstance(n, str) for n in names):
            raise DataError(f"dims of {name!r} must be a list of names, got {names!r}")
        if len(names) != count:
            raise DataError(
                f"dims of {name!r} must name the {count} dimension{'s' * (count != 1)} of one "
                f"value, outermost first and without plates, got {tuple(names)}"
            )
        for dim in names:
            if [*names, *site.plates, *DRAW_DIMS].count(dim) > 1:
                raise DataError(
                    f"dims of {name!r} must be names of their own, got {dim!r}, which the draws, a "
                    "plate or another dimension has already"
                )
        dims[name] = tuple(names)
    return dims
