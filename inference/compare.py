"""Several runs on the same data, ranked by how well they foretell rows they were not fitted to."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyro
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import biject_to

from ppl_gen.data import Dataset, Part, as_part
from ppl_gen.errors import DataError, StoryError
from ppl_gen.inference.batches import some_rows
from ppl_gen.inference.codes import LEAST_ROWS, active, code_means, drawn_codes
from ppl_gen.inference.comparison import Candidate, Comparison, LeaveOneOut
from ppl_gen.inference.estimators import khat_threshold, log_evidence, mmd_test
from ppl_gen.inference.layout import log_prob
from ppl_gen.inference.passes import MEMORY, weighed
from ppl_gen.inference.sampler import Sampler
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.tracing import Batch, blame, sample_sites

if TYPE_CHECKING:
    from ppl_gen.inference.run import Run

LEAST_DRAWS = 25  # fewer have no tail to fit


def compare(
    runs: Mapping[str, Run],
    data: Any,
    *,
    draws: int = 1000,
    train: Any = None,
    memory: int = MEMORY,
    seed: int = 0,
) -> Comparison:
    """Rank runs by the evidence of rows that none of them was fitted to, and by LOO.

    The evidence of a row, in nats, has latents of its own integrated out, and is averaged over the
    posterior of those that all rows share: :meth:`ppl_gen.Run.evidence`. Runs are compared row by
    row, so that what makes a row hard for all of them cancels. LOO is computed by ArviZ on the rows
    of the fit, for stories with a posterior over what the rows share::

        runs = {f"K={k}": pg.fit(GMM(data.shape, k), data) for k in range(1, 11)}
        print(pg.compare(runs, data))

    Beside these stand figures of the codes, where rows have some: the KL of guide from prior, how
    many units are active, and whether the codes of all rows can be told from draws of the prior. A
    run whose prior can only be drawn from has no evidence; it comes last, with the other figures.

    Args:
        runs: What is compared, by name; at least two runs of the same data.
        data: The rows to foretell. Of a data set the valid part is taken, on which choices are
            made; the test part stays for the report.
        draws: Draws of the guide a row.
        train: The rows of the fit, for LOO; those of the data set if one is given.
        memory: Bytes that a pass may take.
        seed: Of the draws.

    Returns:
        The comparison, the best run first; it prints as a table.

    Raises:
        DataError: If there are fewer than two runs, or one of them takes other data, was fitted to
            other data, scores something else than the others, or foretells no rows of others.
        TypeError: If the runs have no names.

    References:
        Evidence: Burda et al. (2016), section 3, https://arxiv.org/abs/1509.00519.
        LOO: Vehtari et al. (2017), https://arxiv.org/abs/1507.04544, whose draws are here those of
        the guide, so that it is as good as the guide is: see :func:`ppl_gen.check`.
    """
    if not isinstance(runs, Mapping):
        raise TypeError(
            "runs must be given by name, as compare({'a': run, 'b': other}, data), got "
            f"{type(runs).__name__}"
        )
    if len(runs) < 2:
        raise DataError(f"runs must be at least 2 to compare, got {len(runs)}")
    if draws < 1:
        raise DataError(f"draws must be at least 1, got {draws}")
    if isinstance(data, Dataset):
        data, train = data.valid, data.train if train is None else train
    subjects = {
        name: _Subject(name, run, data, train, draws, memory, seed) for name, run in runs.items()
    }
    _check_alike(list(subjects.values()))
    estimates = {name: subject.estimate() for name, subject in subjects.items()}
    best = min(estimates.values(), key=lambda e: _rank(e.mean, e.parameters))
    found = [
        replace(estimate.against(best), **subject.beside())
        for estimate, subject in zip(estimates.values(), subjects.values(), strict=True)
    ]
    found.sort(key=lambda c: _rank(c.nats, c.parameters))
    seen = any(subject.seen for subject in subjects.values())
    return Comparison(tuple(found), data=len(best.nats), draws=draws, held_out=not seen)


def _rank(nats: float, parameters: int) -> tuple[bool, float, int]:
    """The best first, of equal ones the simplest; last what has no evidence."""
    unknown = math.isnan(nats)
    return unknown, 0.0 if unknown else -nats, parameters


@dataclass(frozen=True)
class _Estimate:
    """Evidence of the rows under one run.

    Attributes:
        name: Of the run.
        nats: Log evidence of each row, ``(N,)``; NaN where it cannot be told.
        error: Standard error of their mean that the draws cause.
        distrusted: Share of rows whose estimate hangs on a few draws.
        kl: Mean KL of guide from prior, in nats; NaN without codes.
        parameters: How many numbers the model leaves open.
    """

    name: str
    nats: Tensor
    error: float
    distrusted: float
    kl: float
    parameters: int

    @property
    def mean(self) -> float:
        return self.nats.mean().item()

    def against(self, best: _Estimate) -> Candidate:
        """The figures of the run, beside those of the best one."""
        difference = self.nats - best.nats
        if self is best and not math.isnan(self.mean):
            difference = torch.zeros_like(difference)
        error = difference.std() / math.sqrt(len(difference)) if len(difference) > 1 else math.nan
        return Candidate(
            name=self.name,
            nats=self.mean,
            error=self.error,
            difference=difference.mean().item(),
            difference_error=float(error),
            distrusted=self.distrusted,
            parameters=self.parameters,
            kl=self.kl,
        )


class _Subject:
    """A run, the rows it has to foretell, and those it was fitted to."""

    def __init__(
        self, name: str, run: Run, data: Any, train: Any, draws: int, memory: int, seed: int
    ) -> None:
        self.name, self.run = name, run
        self.draws, self.memory, self.seed = draws, memory, seed
        self.structure = run.structure
        if not run.data.columns:
            raise DataError(
                f"run {name!r} must take its data as an argument, got a program that holds them "
                "itself: it has nothing to say of other rows"
            )
        self.rows = _shaped_like(as_part(data), run)
        self.seen = self.is_fitted(self.rows)
        self.train = None if train is None else _shaped_like(as_part(train), run)
        # Rows that are drawn anew are drawn here, so that all runs see the same.
        self.rows = self.rows.sample().fixed(seed)
        try:
            self.batch = run.batch(self.rows)
        except DataError as error:
            raise DataError(f"run {name!r} must take the rows that are compared: {error}") from None
        if self.train is not None and not self.is_fitted(self.train):
            raise DataError(
                f"run {name!r} must be fitted to the train rows that are given, got one of other "
                "rows: compare runs of the same data"
            )
        self.train = None if self.train is None else self.train.sample()
        reason = self._says_nothing()
        if reason:
            raise DataError(f"run {name!r} must give an evidence to each row, but {reason}")
        self.parameters, self.measure = _make_up(run, self.batch)
        self.without_density = run.structure.unscored

    def is_fitted(self, part: Part) -> bool:
        """Whether these are the rows of the fit, with or without columns that it did not take."""
        taken = replace(part, stored=part.stored[: len(self.run.data.columns)])
        return self.run.data.fingerprint in (part.fingerprint, taken.fingerprint)

    def _says_nothing(self) -> str:
        """Why the run has no evidence for each of these rows; empty if it has."""
        point = next((s.name for s in self.structure.latents if s.local and s.point), None)
        if point is not None:
            return f"its guide gives each row one value of {point!r}, and no posterior to weigh"
        if not self.structure.data_plates:
            return "its model has no plate over the data, so that no row has a term of its own"
        if self.structure.needs_all:
            if self.seen:
                return ""
            return f"{self.structure.needs_all}: it knows the rows of its fit alone"
        if self.structure.has_globals and self._globals_follow_rows():
            return (
                "its guide reads what all rows share off the rows it is given, not off those of "
                "the fit"
            )
        return ""

    def _globals_follow_rows(self) -> bool:
        """Whether the guide's draws of global latents change with the rows that it is given."""
        half, drawn = len(self.rows) // 2, []
        if not half:
            return False
        for rows in (slice(0, half), slice(half, 2 * half)):
            with self.run.pair.active(), seeded(self.seed):
                sampler = Sampler(self.run.pair, self.structure, self.run.kwargs)
                with sampler.window.showing(self.batch, rows) as shown:
                    drawn.append(sampler.draw_globals(shown, 2))
        return any(not torch.equal(value, drawn[1][name]) for name, value in drawn[0].items())

    def estimate(self) -> _Estimate:
        """The evidence of the rows."""
        if self.without_density:
            nats = torch.full((len(self.rows),), torch.nan, dtype=torch.float64)
            return _Estimate(self.name, nats, math.nan, math.nan, math.nan, self.parameters)
        latents = self.structure.latents
        exact = all(site.summed or (site.point and not site.local) for site in latents)
        draws = 1 if exact else self.draws
        parts, kl, share = [], [], torch.zeros(draws, dtype=torch.float64)
        for weights, _, divergence in weighed(self.run, self.batch, draws, self.memory, self.seed):
            if weights.isnan().any():
                raise DataError(f"run {self.name!r} must give densities to all rows, got NaN")
            parts.append(log_evidence(weights, khat=not exact))
            kl.append(divergence)
            share += weights.double().softmax(0).sum(1)
        nats, error, khat = (torch.cat([getattr(p, name) for p in parts])
                             for name in ("nats", "error", "khat"))  # fmt: skip
        if any(not (site.local or site.point) for site in latents):
            # Rows that share their draws share their errors: what counts is how much of the rows'
            # evidence hangs on each draw.
            mean_error = (share / len(nats) - 1 / draws).square().sum().sqrt().item()
        else:
            mean_error = error.square().sum().sqrt().item() / len(nats)
        high = (khat > khat_threshold(draws)).double().mean().item()
        distrusted = 0.0 if exact else math.nan if khat.isnan().any() else high
        divergence = torch.cat(kl).mean().item() if self.run.structure.has_codes else math.nan
        return _Estimate(self.name, nats, mean_error, distrusted, divergence, self.parameters)

    def beside(self) -> dict[str, Any]:
        """The figures that stand beside the evidence, by the names they have in a candidate."""
        loo, without_loo = self.leave_one_out()
        units, p_value = self.codes()
        history, silent = self.run.history, self.without_density
        return {
            "loo": loo,
            "without_loo": without_loo,
            "without_evidence": silent,
            "active_units": units,
            "two_sample": p_value,
            "seconds": history[-1].seconds if len(history) else math.nan,
        }

    def codes(self) -> tuple[tuple[int, int] | None, float]:
        """How many units are active, of how many, and how the codes compare with their prior."""
        units, p_value = None, math.nan
        if not self.run.structure.has_codes:
            return units, p_value
        with suppress(NotImplementedError):
            means, _ = code_means(self.run, self.batch, self.memory, self.seed)
            units = active(means) if means and len(self.rows) > 1 else None
        if len(self.rows) >= LEAST_ROWS:
            with suppress(StoryError):  # which says that there is nothing to draw from
                drawn = drawn_codes(self.run, self.batch, self.seed).values()
                tests = [mmd_test(*pair, seed=self.seed).p_value for pair in drawn]
                p_value = min(1.0, len(tests) * min(tests, default=math.nan))
        return units, p_value

    def leave_one_out(self) -> tuple[LeaveOneOut | None, str]:
        """LOO on the rows of the fit; or why there is none."""
        if self.without_density:
            return None, "a law without a density gives no weights"
        latents = self.structure.latents
        outer = [site for site in latents if not site.local]
        if self.structure.has_codes:
            return None, "each row has latents of its own that are not summed out"
        if not outer or all(site.point for site in outer):
            return None, "there is no posterior of what the rows share, only single values"
        if self.train is None:
            return None, "the rows of the fit were not given: hand over the data set, or train="
        if self.draws < LEAST_DRAWS:
            return None, f"it needs at least {LEAST_DRAWS} draws, got {self.draws}"
        tree = self.run.posterior(
            self.train.fixed(self.seed),
            self.draws,
            groups=("log_likelihood",),
            align=False,
            memory=self.memory,
            seed=self.seed,
        )
        kept = {"chain", "draw", *self.structure.data_plates}
        terms = [
            torch.tensor(value.sum([d for d in value.dims if d not in kept]).values[0])
            for value in tree["log_likelihood"].data_vars.values()
            if self.structure.data_plates & set(value.dims)
        ]
        return _leave_one_out(torch.stack(terms).sum(0)), ""


def _leave_one_out(log_likelihood: Tensor) -> LeaveOneOut:
    """LOO of independent draws of the posterior, ``(S, N)`` in nats, by ArviZ."""
    import arviz_stats
    from xarray import Dataset, DataTree

    group = Dataset({"x": (("chain", "draw", "row"), log_likelihood[None].double().numpy())})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Pareto k is high is told by the figure
        tree = DataTree.from_dict({"log_likelihood": group})
        found: Any = arviz_stats.loo(tree, pointwise=True, reff=1.0)  # pyright: ignore[reportPrivateImportUsage]
    rows = log_likelihood.shape[1]
    return LeaveOneOut(
        nats=float(found.elpd) / rows,
        error=float(found.se) / rows,
        parameters=float(found.p),
        distrusted=float((found.pareto_k > found.good_k).mean()),
    )


def _shaped_like(part: Part, run: Run) -> Part:
    """Rows with their observations flattened, or put back in shape, as the run takes them."""
    shape, own = tuple(run.data.columns[0][0]), part.shape
    flat = 1 in (len(shape), len(own)) and math.prod(shape) == math.prod(own)
    if shape == own or not flat:
        return part
    # A mask has the shape of the observations that it is of.
    return part.then(lambda rows: rows.reshape(len(rows), *shape), where=torch.Size(own))


def _check_alike(subjects: list[_Subject]) -> None:
    """Refuse runs whose evidence is of different things, or of different data."""
    first = subjects[0]
    for other in subjects[1:]:
        if first.train is None and other.run.data.fingerprint != first.run.data.fingerprint:
            raise DataError(
                f"run {other.name!r} must be fitted to the data of {first.name!r}, got one of "
                "other rows: compare runs of the same data, or hand over the data set"
            )
        mine, theirs = first.structure.elements, other.structure.elements
        if mine != theirs:
            raise DataError(
                f"run {other.name!r} must observe as many numbers a row as {first.name!r}, "
                f"{mine:g}, got {theirs:g}: their evidence is of different things"
            )
        if first.measure != other.measure:
            raise DataError(
                f"run {other.name!r} must give its data {first.measure}, as {first.name!r} does, "
                f"got {other.measure}: choose likelihoods of one kind"
            )


def _make_up(run: Run, batch: Batch) -> tuple[int, str]:
    """How many numbers the model leaves open, and whether data have probabilities or densities.

    Open are the parameters that its density depends on, and the values of its global latents;
    parameters of the guide alone make no story richer.
    """
    rows = batch if run.structure.needs_all else some_rows(batch, slice(0, 2))
    used, trace = _used(run, rows)
    nodes = {n: node for n, node in sample_sites(trace).items() if n in run.structure.sites}
    open_latents = [_freedom(nodes[s.name]) for s in run.structure.latents if not s.local]
    discrete = {nodes[s.name]["fn"].support.is_discrete for s in run.structure.observed if s.local}
    kinds = [name for is_so, name in ((True, "probabilities"), (False, "densities"))
             if is_so in discrete]  # fmt: skip
    return sum(p.numel() for p in used) + sum(open_latents), " and ".join(kinds)


def open_parameters(run: Run, rows: Batch) -> list[Tensor]:
    """The parameters that the density of the model depends on."""
    return _used(run, rows)[0]


def _used(run: Run, rows: Batch) -> tuple[list[Tensor], Any]:
    """Parameters that the density of the model depends on, and a trace of it."""
    with run.pair.active(), run.pair.evaluating(), seeded(0), pyro.validation_enabled(False):
        with torch.enable_grad(), blame("model"):
            trace = poutine.trace(run.pair.model).get_trace(*rows, **run.kwargs)
            scored = [n for n in sample_sites(trace).values() if not _is_implicit(run, n)]
            density = sum((log_prob(node).sum() for node in scored), torch.zeros(()))
        parameters = list(run.pair.parameters().values())
        if not parameters or not density.requires_grad:
            return [], trace
        gradients = torch.autograd.grad(density, parameters, allow_unused=True)
    pairs = zip(parameters, gradients, strict=True)
    return [p for p, gradient in pairs if gradient is not None], trace


def _is_implicit(run: Run, node: Mapping[str, Any]) -> bool:
    site = run.structure.sites.get(node["name"])
    return site is not None and site.implicit


def _freedom(node: Mapping[str, Any]) -> int:
    """How many numbers determine a value: one less than its size on a simplex, for instance."""
    shape = node["value"].shape
    try:
        return math.prod(biject_to(node["fn"].support).inverse_shape(shape))
    except NotImplementedError:  # as of a discrete law
        return math.prod(shape)
