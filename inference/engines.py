"""One story, several engines: how far apart are the posteriors they find, and what do they cost?"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide, init_to_median, init_to_value
from pyro.infer.autoguide.guides import AutoNormalizingFlow
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ppl_gen.data import Dataset, Part, as_part
from ppl_gen.errors import DataError, PplGenError, StoryError
from ppl_gen.inference.batches import some_rows
from ppl_gen.inference.checks.reference import MIXED
from ppl_gen.inference.compare import open_parameters
from ppl_gen.inference.draws import Draws
from ppl_gen.inference.engine_comparison import Engine, EngineComparison
from ppl_gen.inference.engine_distances import (
    Exchange,
    Found,
    Free,
    error_of_means,
    moved,
    with_latents,
    worst_rhat,
)
from ppl_gen.inference.estimators import khat_threshold, log_evidence
from ppl_gen.inference.estimators.nuts import nuts
from ppl_gen.inference.fit import fit, read_settings
from ppl_gen.inference.memory import MEMORY
from ppl_gen.inference.pair import _autoguide, _is_enumerated, as_pair
from ppl_gen.inference.passes import plan
from ppl_gen.inference.reference import guide_draws, look
from ppl_gen.inference.run import Run
from ppl_gen.inference.sampler import Sampler
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.settings import OF_GRADIENTS
from ppl_gen.inference.structure import Site
from ppl_gen.inference.svi import GradientAscent
from ppl_gen.inference.target import Target
from ppl_gen.inference.tracing import Batch
from ppl_gen.inference.training import DEFAULT_BATCH
from ppl_gen.story import Maximisable

ENGINES = ("amortised", "auto", "em", "nuts", "hmc")
# Of Pyro's autoguides those that are made of others, or only of whole numbers.
WITHOUT_LAW = ("AutoCallable", "AutoDiscreteParallel", "AutoGuide", "AutoGuideList")
ROWS = 20
DRAWS = 1000
CHAINS, WARMUP = 2, 300
# Where chains would take hours.
MOST_COORDINATES = 1000
# An autoguide of latents of single rows takes all of them at every step.
MOST_AT_A_STEP = 2000


def compare_engines(
    story: Any,
    data: Any,
    engines: Sequence[str] = ("amortised", "auto", "nuts"),
    *,
    rows: int = ROWS,
    draws: int = DRAWS,
    chains: int = CHAINS,
    warmup: int = WARMUP,
    kwargs: Mapping[str, Any] | None = None,
    memory: int = MEMORY,
    tell: Callable[[str], None] = lambda sentence: None,
    **settings: Any,
) -> EngineComparison:
    """Fit one story by several engines, and hold what they find against each other.

    What is compared is the posterior of the latents given the data and the parameters of the model.
    If the model has parameters, such as a decoder's, they are first fitted as by ``amortised``, and
    ``auto``, ``nuts`` and ``hmc`` take them as they are; else each begins where the story does. The
    engines:

    - ``amortised``: the story's own guide by SVI, as :func:`ppl_gen.fit` does;
    - ``auto``: the same model under Pyro's ``AutoNormal``, or another of its autoguides, as in
      ``auto:AutoMultivariateNormal``; of latents of single rows it keeps parameters for every row,
      and of more than 2,000 it is fitted to the compared ones alone, which changes nothing, as the
      parameters of the model are held;
    - ``em``: expectation and maximisation, for stories that have it: a point, and no posterior;
    - ``nuts``: Pyro's no-U-turn sampler on the joint density of all latents that are not summed
      out; it begins at draws of the guide, and may miss a hump that is far from there;
    - ``hmc``: chains with steps of one length, many at once, which are annealed from guide and
      prior and so give an evidence, too, which errs downwards, the more the more coordinates there
      are; latents of each row are walked on their own.

    The reference is ``nuts`` if it is asked for and its chains agree, else ``hmc``. Where the story
    says that components are exchangeable, draws are relabelled to agree with the reference's.
    Latents of single rows are compared on some rows, the same for all engines; where some latents
    are shared, chains walk in those of all rows together::

        print(pg.compare_engines(GMM(x.shape[1:], 3), x, ["em", "nuts", "amortised"]))

    Args:
        story: What :func:`ppl_gen.fit` takes.
        data: What it takes; of a data set the train part is compared on.
        engines: Their names, at least one.
        rows: On how many rows latents of single rows are compared.
        draws: Draws of each posterior.
        chains: How many chains of ``nuts`` share its draws.
        warmup: How many draws of each go before.
        kwargs: Further arguments of both programs.
        memory: Bytes that a pass may take.
        tell: Is told, in a sentence, when an engine is done.
        **settings: Of the fits, as of :func:`ppl_gen.fit`; ``em`` takes those that are not of
            gradients. ``seed`` is also that of the draws.

    Returns:
        The comparison; it prints as a table. An engine that does not apply has its reason there.

    Raises:
        DataError: If there are no data, or a number is too small.
        StoryError: If an engine is unknown or named twice, the programs do not fit the data, or the
            program picks its own mini-batch.
        FitError: If the parameters of the model cannot be fitted.

    References:
        NUTS: Hoffman and Gelman (2014), https://jmlr.org/papers/v15/hoffman14a.html.
        Autoguides: Kucukelbir et al. (2017), https://jmlr.org/papers/v18/16-107.html.
        Annealing: Neal (2001), https://arxiv.org/abs/physics/9803008.
    """
    names = _named(engines)
    for name, value, least in (("rows", rows, 1), ("draws", draws, 4), ("chains", chains, 1),
                               ("warmup", warmup, 10)):  # fmt: skip
        if value < least:
            raise DataError(f"{name} must be at least {least}, got {value}")
    if data is None:
        raise DataError("data must be given to compare engines on, got None")
    read_settings(settings)
    if settings.get("method", "svi") != "svi":
        raise StoryError("method must be left out: name 'em' among the engines")
    bench = _Bench(
        story, data, dict(kwargs or {}), settings, rows, draws, chains, warmup, memory, tell
    )
    found = {name: bench.found(name) for name in names}
    with bench.base.pair.active():
        return _compared(bench, found)


@dataclass
class _Bench:
    """A story, its data, and how its engines are to be run."""

    story: Any
    data: Any
    kwargs: dict[str, Any]
    settings: dict[str, Any]
    rows: int
    draws: int
    chains: int
    warmup: int
    memory: int
    tell: Callable[[str], None]

    @cached_property
    def part(self) -> Part:
        """The rows of the fit, as they are compared on."""
        return as_part(self.data.train if isinstance(self.data, Dataset) else self.data)

    @cached_property
    def begun(self) -> Run:
        """The story at its first weights, not yet fitted."""
        given = self.data.train if isinstance(self.data, Dataset) else self.data
        chosen = read_settings(self.settings)
        with seeded(chosen.seed), chosen.with_precision():
            pair = as_pair(self.story).fresh()
            pair.to(chosen.torch_device())
            with pair.active():
                training = GradientAscent(pair, given, None, self.kwargs, chosen, False, elbo=None)
                training.begin()
                run = training.result()
        if run.structure.subsamples:
            raise StoryError(
                "engines can be compared on all the data, but the program picks its own mini-batch "
                "by plate(..., subsample_size=): leave it out"
            )
        return run

    @cached_property
    def fitted(self) -> tuple[Run, float]:
        """The story fitted by its own guide, and the seconds that took."""
        begin = time.perf_counter()
        settings = {"progress": False, "kwargs": self.kwargs, **self.settings}
        return fit(self.story, self.data, **settings), time.perf_counter() - begin

    @cached_property
    def parameters(self) -> bool:
        """Whether the density of the model depends on parameters."""
        return bool(open_parameters(self.begun, self._example))

    @property
    def _example(self) -> Batch:
        batch = self.begun.batch(self.part)
        return batch if self.begun.structure.needs_all else some_rows(batch, slice(0, 2))

    @cached_property
    def base(self) -> Run:
        """The run whose model is everybody's: with its parameters fitted, if it has some."""
        return self.fitted[0] if self.parameters else self.begun

    @property
    def seed(self) -> int:
        return self.base.settings.seed

    @cached_property
    def by_row(self) -> bool:
        """Whether every latent that is not summed out belongs to a single row."""
        return bool(self.moved) and all(site.local for site in self.moved)

    @cached_property
    def chosen(self) -> Tensor:
        """Numbers of the rows on which latents of single rows are compared."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randperm(len(self.part), generator=generator)[: self.rows].sort().values

    def seen(self, run: Run) -> tuple[Batch, Tensor]:
        """The batch to show a run's programs, and which of its rows are compared."""
        batch = run.batch(self.part)
        alone = run.data.rows < len(self.part)  # fitted to these rows and no others
        if self.by_row and (run.structure.takes_batches or alone):
            return some_rows(batch, self.chosen.to(run.device)), torch.arange(len(self.chosen))
        return batch, self.chosen

    @cached_property
    def sampler(self) -> Sampler:
        """That of the base, whose store has to be in force."""
        return Sampler(self.base.pair, self.base.structure, self.kwargs)

    def target(self, whole: bool) -> Target:
        """The density of the latents given the parameters of the base."""
        target = Target(self.sampler, self.seen(self.base)[0], whole=whole)
        coordinates = target.dimensions
        if coordinates > MOST_COORDINATES and whole:
            raise StoryError(
                f"its chains would walk in {coordinates:,} coordinates at once, and "
                f"{MOST_COORDINATES:,} are what they can: give fewer rows"
            )
        return target

    def found(self, name: str, told: str = "") -> Found:
        """What an engine finds; or the reason why it cannot be run."""
        kind, _, guide = name.partition(":")
        if kind in ("auto", "nuts", "hmc"):
            _ = self.base  # what all have in common is nobody's time
        try:
            if kind == "amortised":
                found = self._of_run(name, *self.fitted)
            elif kind == "em":
                found = self._by_em(name)
            else:
                with self.base.pair.active(), seeded(self.seed):
                    found = (
                        self._by_autoguide(name, guide or "AutoNormal")
                        if kind == "auto"
                        else self._by_chains(name)
                    )
        except PplGenError as error:
            found = Found(Engine(name, reason=" ".join(str(error).split())), {})
        if kind in ("auto", "nuts", "hmc") and self.parameters and not found.engine.reason:
            found.engine = replace(found.engine, before=self.fitted[1])
        seconds, reason = found.engine.seconds, found.engine.reason
        self.tell(f"{told or name}: {f'not run: {reason}' if reason else f'{seconds:.1f} s'}")
        return found

    def _by_em(self, name: str) -> Found:
        if not isinstance(as_pair(self.story).story, Maximisable):
            raise StoryError("the story has no statistics() and maximise(), as mixtures have")
        taken = {n: v for n, v in self.settings.items() if n not in OF_GRADIENTS}
        begin = time.perf_counter()
        run = fit(
            self.story,
            self.data,
            kwargs=self.kwargs,
            progress=False,
            **{**taken, "method": "em"},
        )
        seconds = time.perf_counter() - begin
        drawn = self._drawn(run)
        likelihood = run.history[-1].elbo
        engine = Engine(name, seconds, run.data.rows, log_likelihood=likelihood, point=True)
        return Found(engine, drawn.latents, frozenset(drawn.latents))

    def _by_autoguide(self, name: str, guide: str) -> Found:
        model = self._held()
        target = Target(self.sampler, self.seen(self.base)[0], whole=True)
        local, size = any(site.local for site in self.moved), len(self.part)
        batch, settings = self.base.batch(self.part), dict(self.settings)
        if local:  # as many steps as others have, each of all rows
            steps = read_settings(self.settings)
            batches = -(-size // min(steps.batch_size or DEFAULT_BATCH, size))
            settings |= {"batch_size": None, "epochs": batches * steps.epochs_of(batches)}
            if size > MOST_AT_A_STEP and self.by_row:
                batch = self.seen(self.base)[0]
            if len(batch[0]) > MOST_AT_A_STEP:
                raise StoryError(
                    f"it would take all {size:,} rows at every step, as each has latents of its "
                    f"own, and {MOST_AT_A_STEP:,} are what it can: give fewer rows"
                )
        begin = time.perf_counter()
        own = _guide(guide, model, self._first(target))
        run = fit((model, own), batch, kwargs=self.kwargs, progress=False, **settings)
        return self._of_run(name, run, time.perf_counter() - begin)

    def _by_chains(self, name: str) -> Found:
        with pyro.validation_enabled(False):
            target = self.target(whole=name == "nuts" or not self.by_row)
            begin, weights = time.perf_counter(), None
            if name == "nuts":
                start = guide_draws(target, self.chains)[0][:, 0]
                each = max(4, -(-self.draws // self.chains))
                try:
                    positions = nuts(target.log_density, start, each, self.warmup)
                except (RuntimeError, ValueError, ArithmeticError) as error:
                    raise StoryError(
                        f"Pyro's NUTS raised {type(error).__name__}: {error}"
                    ) from error
            else:
                whole = not self.by_row
                found = look(self.base, target.batch, self.seed, self.memory, whole=whole)
                positions, weights = found.chains, found.annealed
            seconds, count = time.perf_counter() - begin, positions.shape[1]
            latents = target.latents(positions.transpose(0, 1).flatten(0, 1))
            picked = self.seen(self.base)[1]
            likelihood = self._likelihood(target, latents, picked)
        size = len(target.batch[0])
        engine = Engine(name, seconds, rows=size, log_likelihood=likelihood)
        if weights is not None:
            engine = self._with_evidence(engine, weights[:, picked] if self.by_row else weights)
            engine = replace(engine, elbo=math.nan, elbo_error=math.nan, distrusted=math.nan)
        return Found(engine, self._picked(self.base, latents, picked), chains=count)

    def _of_run(self, name: str, run: Run, seconds: float) -> Found:
        """What the guide of a run says."""
        drawn = self._drawn(run)
        engine = Engine(name, seconds, run.data.rows, log_likelihood=drawn.likelihood)
        latents = [s for s in run.structure.latents if not s.summed]
        points = frozenset(s.name for s in latents if s.point)
        if points:
            engine = replace(engine, point=True)
        elif self.by_row and drawn.joint:
            reason = "its guide has one law for all rows together, and none for each"
            engine = replace(engine, unbounded=reason)
        elif drawn.log_weights is not None:
            engine = self._with_evidence(engine, drawn.log_weights)
        return Found(engine, drawn.latents, points)

    def _with_evidence(self, engine: Engine, log_weights: Tensor) -> Engine:
        """Bounds by log-weights, ``(S, N)``, of rows, or of all of them together, ``(S, 1)``."""
        found = log_evidence(log_weights.detach().cpu())
        terms = log_weights.shape[1] if self.by_row else len(self.part)
        spread = log_weights.double().std(0) / math.sqrt(len(log_weights))
        return replace(
            engine,
            elbo=found.elbo.sum().item() / terms,
            elbo_error=spread.square().sum().sqrt().item() / terms,
            evidence=found.nats.sum().item() / terms,
            evidence_error=found.error.square().sum().sqrt().item() / terms,
            distrusted=(found.khat > khat_threshold(found.draws)).double().mean().item(),
        )

    def _drawn(self, run: Run) -> _Drawn:
        """Draws of a run's guide on the rows that are compared."""
        batch, picked = self.seen(run)
        with run.pair.active(), seeded(self.seed), pyro.validation_enabled(False):
            sampler = Sampler(run.pair, run.structure, self.kwargs)
            latents: dict[str, list[Tensor]] = {}
            weights, likelihood, joint = [], [], False
            together = _together(sampler, batch, self.draws, self.memory)
            for begin in range(0, self.draws, together):
                drawn = sampler.draw(batch, min(together, self.draws - begin))
                for name, value in drawn.latents.items():
                    latents.setdefault(name, []).append(value.cpu())
                joint = joint or bool(drawn.log_q_global.any())
                weights.append(self._weights(drawn, picked))
                likelihood.append(self._terms(sampler, drawn, picked))
        joined = {name: torch.cat(values) for name, values in latents.items()}
        scored = None if run.structure.unscored else torch.cat(weights)
        mean = torch.cat(likelihood).mean().item()
        return _Drawn(self._picked(run, joined, picked), scored, mean, joint)

    def _weights(self, drawn: Draws, picked: Tensor) -> Tensor:
        local = drawn.log_weights.double().cpu()
        if self.by_row:
            return local[:, picked]
        return (local.sum(1) + (drawn.log_p_global - drawn.log_q_global).cpu())[:, None]

    def _terms(self, sampler: Sampler, drawn: Draws, picked: Tensor) -> Tensor:
        """Log-likelihood per datum of each draw, ``(S,)``."""
        total, structure = torch.zeros(()), sampler.structure
        for name, terms in drawn.log_likelihood.items():
            terms, site = terms.double().cpu(), structure.sites.get(name)
            if self.by_row:
                if site is not None and not site.local:
                    continue
                summed = site is None or terms.dim() <= len(site.plates)
                axis = 1 if summed else sampler.window.row_axis(name)
                terms = terms.index_select(axis, picked)
            total = total + terms.reshape(len(terms), -1).sum(1)
        return total / (len(picked) if self.by_row else len(self.part))

    def _likelihood(self, target: Target, latents: Mapping[str, Tensor], picked: Tensor) -> float:
        """Mean log-likelihood per datum at draws of chains, under the base's model."""
        sampler, size = self.sampler, len(next(iter(latents.values())))
        placed = {}
        for name, value in latents.items():
            node = target.coordinates[name].node
            placed[name] = (
                sampler.layout.placed(value, node)
                if sampler.at_once
                else value.reshape(size, *node["value"].shape)
            )
        together, terms = _together(sampler, target.batch, size, self.memory), []
        for begin in range(0, size, together):
            held = {name: value[begin : begin + together] for name, value in placed.items()}
            drawn = sampler.draw(target.batch, len(next(iter(held.values()))), held)
            terms.append(self._terms(sampler, drawn, picked))
        return torch.cat(terms).mean().item()

    @cached_property
    def moved(self) -> list[Site]:
        """The latents in which engines can differ."""
        return moved(self.base.structure)

    def _picked(self, run: Run, latents: Mapping[str, Tensor], picked: Tensor) -> dict[str, Tensor]:
        """Draws of the sites that engines differ in, of the rows that are compared."""
        window, found = Sampler(run.pair, run.structure, {}).window, {}
        for site in self.moved:
            if site.name in latents:
                value = latents[site.name].detach().cpu()
                if site.local:
                    value = value.index_select(window.row_axis(site.name), picked)
                found[site.name] = value
        return found

    def _first(self, target: Target) -> dict[str, Tensor]:
        """A draw of the first guide of what all rows share: where an autoguide begins."""
        with self.begun.pair.active(), seeded(self.seed):
            sampler = Sampler(self.begun.pair, self.begun.structure, self.kwargs)
            drawn = sampler.draw(self.seen(self.begun)[0], 1).latents
        shared = [site.name for site in self.moved if not site.local]
        return {n: drawn[n].reshape(target.coordinates[n].node["value"].shape) for n in shared}

    def _held(self) -> Any:
        """The model of the base, none of whose parameters can be trained."""
        pair = self.base.pair.copied()
        for module in pair.modules().values():
            module.requires_grad_(False)
        store = pyro.get_param_store()
        values = {name: store[name].detach().clone() for name in store.keys()}  # noqa: SIM118
        return _Held(values)(pair.model) if values else pair.model


@dataclass
class _Drawn:
    latents: dict[str, Tensor]
    log_weights: Tensor | None
    likelihood: float
    joint: bool


class _Held(Messenger):
    """Give parameters of Pyro's store values that no fit changes."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_param(self, msg: dict[str, Any]) -> None:
        if msg["name"] in self.values:
            msg["value"] = self.values[msg["name"]]
            msg["done"] = True


def _named(engines: Sequence[str]) -> tuple[str, ...]:
    """The names of engines, once they are known.

    Raises:
        StoryError: If there are none, one is unknown, or one is named twice.
    """
    names = tuple(engines.split(",")) if isinstance(engines, str) else tuple(engines)
    for name in names:
        kind, colon, guide = name.partition(":")
        if kind not in ENGINES or (colon and kind != "auto"):
            raise StoryError(
                f"engines must be among {', '.join(ENGINES)}, or one of Pyro's autoguides as in "
                f"auto:AutoMultivariateNormal, got {name!r}"
            )
        if colon and (guide in WITHOUT_LAW or not _autoguide(guide)):
            raise StoryError(f"{guide} has no law of its own: take another, such as AutoNormal")
    if not names or len(set(names)) < len(names):
        raise StoryError(f"engines must be names that differ, got {', '.join(names) or 'none'}")
    return names


def _guide(name: str, model: Any, first: Mapping[str, Tensor]) -> AutoGuide:
    """One of Pyro's autoguides, which begins at these values where it takes a beginning."""
    kind, options = _autoguide(name), {}
    taken = inspect.signature(kind).parameters
    if "init_loc_fn" in taken and not issubclass(kind, AutoNormalizingFlow):
        options["init_loc_fn"] = init_to_value(values=dict(first), fallback=init_to_median)
    try:
        return kind(poutine.block(model, hide_fn=_is_enumerated), **options)
    except (RuntimeError, ValueError, TypeError, NotImplementedError, AssertionError) as error:
        raise StoryError(f"Pyro's {name} cannot guide these latents: {error}") from error


def _together(sampler: Sampler, batch: Batch, draws: int, memory: int) -> int:
    """How many draws of all these rows to make at once."""
    rows, together = plan(sampler, batch, draws, memory, predict=False)
    return max(1, min(together, together * rows // max(1, sampler.window.size(batch))))


def _compared(bench: _Bench, found: dict[str, Found]) -> EngineComparison:
    """Everything held against the reference, in free coordinates."""
    doubts: list[str] = []
    reference, error, free, trusted = "", math.nan, {}, False
    try:
        reference, error, free, trusted = _held_against(bench, found, doubts)
    except StoryError as reason:
        doubts.append(f"There are no distances: {str(reason).removesuffix('.')}.")
    local = any(s.local for s in bench.moved)
    return EngineComparison(
        engines=tuple(
            with_latents(one, free.get(name), free.get(reference) or {})
            for name, one in found.items()
        ),
        reference=reference,
        reference_error=error,
        data=len(bench.part),
        rows=len(bench.chosen) if local else 0,
        draws=bench.draws,
        trusted=trusted,
        doubts=tuple(doubts),
    )


def _held_against(
    bench: _Bench, found: dict[str, Found], doubts: list[str]
) -> tuple[str, float, dict[str, Free], bool]:
    """The reference, the error of its means, draws of all engines, and whether to trust it."""
    if not bench.moved:
        raise StoryError("the story has no latent that is not summed out")
    coordinates = Target(bench.sampler, bench.seen(bench.base)[0], whole=True).coordinates

    def free(one: Found, latents: Mapping[str, Tensor]) -> Free:
        values = {}
        for site in bench.moved:
            value = coordinates[site.name].transform.inv(latents[site.name]).double()
            by_row = value[:, None]
            if site.local:
                by_row = value.movedim(bench.sampler.window.row_axis(site.name), 1)
            values[site.name] = by_row.reshape(*by_row.shape[:2], -1)
            if not values[site.name].isfinite().all():
                raise StoryError(f"a value of {site.name!r} lies at the edge of its support")
        return values

    chained = {n: found[n] for n in ("nuts", "hmc") if n in found and not found[n].engine.reason}
    if not chained:
        other = bench.found("hmc", "hmc, for a reference")
        if other.engine.reason:
            raise StoryError(f"no chains can be run: {other.engine.reason}")
        chained = {"hmc": other}
        doubts.append("'hmc' is the reference, as 'nuts' was not run.")
    labels = Exchange(bench.base.story, bench.base.structure)
    rested = {}
    for name, one in chained.items():
        alone = free(one, labels.like(one.latents, one.latents))
        site, most = worst_rhat(alone, one.chains)
        one.engine = replace(one.engine, rhat=most)
        rested[name] = most <= MIXED
        if not rested[name]:
            remedy = "take more warm-up and draws" if name == "nuts" else "name 'nuts', too"
            doubts.append(
                f"The chains of {name!r} have not come to rest (R-hat {most:.2f} in {site}): do "
                f"not believe distances from them; {remedy}."
            )
    reference = next((name for name in chained if rested[name]), next(iter(chained)))
    held = chained[reference]
    values = {}
    for name, one in {**found, reference: held}.items():
        if one.engine.reason:
            continue
        try:
            values[name] = free(one, labels.like(one.latents, held.latents))
        except (StoryError, DataError) as error:
            one.engine = replace(one.engine, apart=str(error).removesuffix("."))
    error = error_of_means(values[reference], held.chains)
    doubts.append(
        f"The means of {reference} are themselves uncertain by up to {error:.2f} deviations: "
        "distances below that say nothing."
    )
    return reference, error, values, rested[reference]
