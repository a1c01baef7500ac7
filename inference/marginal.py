"""Log-densities with the enumerated sites of a model summed out, datum by datum."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from opt_einsum import shared_intermediates
from pyro.infer import TraceEnum_ELBO
from pyro.infer.traceenum_elbo import _compute_model_factors
from pyro.ops.contract import contract_tensor_tree
from torch import Tensor

from ppl_gen.inference.layout import DRAWS
from ppl_gen.inference.pair import Program
from ppl_gen.inference.tracing import Batch, blame


def summed_out(
    model: Program,
    guide: Program,
    batch: Batch,
    kwargs: Mapping[str, Any],
    nesting: int,
    data_plates: frozenset[str],
    sizes: tuple[int, int],
) -> tuple[Any, Tensor, Tensor]:
    """Contract the factors of an enumerated model, leaving the draws and the data apart.

    Args:
        model: The model, under its plate of draws.
        guide: The guide, held to the draws that were made.
        batch: Rows of data.
        kwargs: Further arguments of both.
        nesting: How many batch dimensions plates take, that of the draws included.
        data_plates: Names of the plates over data.
        sizes: Numbers of draws and of rows, ``S`` and ``N``.

    Returns:
        The enumerated trace of the model; its log-density inside the data plate, ``(S, N)``; and
        outside, ``(S,)``; both in nats.

    Reference:
        Obermeyer et al. (2019), https://arxiv.org/abs/1902.03210
    """
    elbo = TraceEnum_ELBO(max_plate_nesting=nesting, strict_enumeration_warning=False)
    with blame("model"):
        model_trace, guide_trace = next(elbo._get_traces(model, guide, batch, kwargs))
    costs, factors, _, sum_dims, _ = _compute_model_factors(model_trace, guide_trace)
    with shared_intermediates() as cache:
        summed = contract_tensor_tree(OrderedDict(factors), set(sum_dims), cache=cache)
    symbols = model_trace.plate_to_symbol
    data = next((symbols[p] for p in data_plates if p in symbols), None)
    draws, rows = sizes
    inner, outer = torch.zeros(draws, rows), torch.zeros(draws)
    for ordinal, terms in [*costs.items(), *summed.items()]:
        for term in terms:
            if data in ordinal:
                inner = inner.to(term.device) + _sum_to(term, symbols.get(DRAWS), data)
            else:
                outer = outer.to(term.device) + _sum_to(term, symbols.get(DRAWS), None)[:, 0]
    return model_trace, inner, outer


def _sum_to(term: Any, draw: str | None, data: str | None) -> Tensor:
    """Sum a packed tensor over all its dimensions but two, ``(S or 1, N or 1)``."""
    dims = term._pyro_dims
    away = [i for i, symbol in enumerate(dims) if symbol not in (draw, data)]
    total = term.sum(away) if away else term
    left = [symbol for symbol in dims if symbol in (draw, data)]
    sizes = dict(zip(left, total.shape, strict=True))
    if left == [data, draw]:
        total = total.T
    return total.reshape(sizes.get(draw, 1), sizes.get(data, 1))
