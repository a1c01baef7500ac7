"""What a report looks at: a run, some rows of data, and what the run makes of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ppl_gen.data import Dataset, Part, as_part, load
from ppl_gen.data.labels import UNKNOWN
from ppl_gen.errors import PplGenError
from ppl_gen.inference.layout import element_mask
from ppl_gen.inference.run import Run
from ppl_gen.inference.sampler import Sampler
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.structure import Site
from ppl_gen.inference.tracing import trace_nodes
from ppl_gen.report.canvas import drawable

ROWS = 500
WHOLE = 2000
CLASSES = 20

Kind = Literal["image", "plane", "vector"]


class NotShown(PplGenError):
    """There is nothing to show; the sentence says why."""


def kind_of(x: Tensor) -> Kind:
    """How observations ``(N, *shape)`` are drawn: as images, points of the plane, or columns."""
    shape = x.shape[1:]
    channels = len(shape) == 3 and shape[0] in (1, 3)
    if (len(shape) == 2 or channels) and min(shape[-2:]) > 1:
        return "image"
    return "plane" if shape.numel() == 2 else "vector"


@dataclass(frozen=True)
class Labels:
    """What is known of each row beside the observation.

    Attributes:
        values: Shape ``(N,)``, in double precision.
        names: What each class is called; None where the labels are continuous.
    """

    values: Tensor
    names: Mapping[int, str] | None

    def name(self, row: int) -> str:
        """The label of a row, in words."""
        value = self.values[row].item()
        return f"{value:.3g}" if self.names is None else self.names[int(value)]


def labels_of(part: Part, label_names: Sequence[str] | None) -> Labels | None:
    """The labels of a part, if a column beside the observations has one number a row.

    Whole numbers are classes if there are at most 20 of them; all else is continuous. The class -1
    stands for a label that is not known.
    """
    own = [y for y in part.stored[1:] if y[0].numel() == 1 and not y.is_complex()]
    if not own:
        return None
    y = own[0]
    values = y.detach().reshape(-1).double().cpu()
    if not values.isfinite().all():
        return None
    classes = values.unique().tolist()
    if y.is_floating_point() or len(classes) > CLASSES:
        return Labels(values, None)
    known = {UNKNOWN: "unknown", **dict(enumerate(map(str, label_names or ())))}
    return Labels(values, {int(c): known.get(int(c), str(int(c))) for c in classes})


@dataclass(frozen=True)
class Shown:
    """The data that a report is given, or found by itself.

    Attributes:
        name: What they are called.
        part: All of their rows; None if there are none to be had.
        which: What part of a data set that is.
        label_names: What the classes are called, class 0 first.
        column_names: What the entries of an observation are called.
        remark: Why there are none, or what is odd about them.
        rows: Which row of the source each of them is, from 0, if that is known.
    """

    name: str
    part: Part | None = None
    which: str = ""
    label_names: Sequence[str] | None = None
    column_names: Sequence[str] | None = None
    remark: str = ""
    rows: Tensor | None = None


def data_to_show(run: Run, data: Any = None) -> Shown:
    """Take the data given, or load those of the fit again if they are known by name.

    Raises:
        DataError: If data are given and are of no known kind.
    """
    fitted = _short(str((run.data.source or {}).get("name_or_path", "data")))
    if data is not None and not isinstance(data, Dataset):
        return Shown(fitted, as_part(data))
    remark = ""
    if data is None:
        if run.data.source is None:
            remark = "No data were given, and the run cannot load its own again."
            return Shown(fitted, remark=remark)
        try:
            data = load(**{**run.data.source, "download": False})
        except PplGenError as error:
            return Shown(fitted, remark=f"The data of the fit cannot be loaded again: {error}.")
        if data.train.fingerprint != run.data.fingerprint:
            remark = "The data of this name are no longer those of the fit."
    position, which = (0, "training part") if run.structure.needs_all else (2, "test part")
    rows = None if data.rows is None else data.rows[position]
    names = data.label_names, data.column_names
    return Shown(_short(data.name), data.parts[position], which, *names, remark, rows)


def _short(name: str) -> str:
    """A name without the folders of the machine it was made on."""
    return Path(name).name or name


@dataclass
class View:
    """A run, up to 500 rows of data, and what the run makes of them, each computed once.

    Which sites to show is found in the traced structure: the observed site inside the data plate
    whose value is largest, and the first latent one there whose value is a vector.

    Attributes:
        run: The fitted story.
        shown: The data, all rows.
        seed: Of the choice of rows and of every draw.
        label_names: What the classes are called, if the data do not say.
    """

    run: Run
    shown: Shown
    seed: int = 0
    label_names: Sequence[str] | None = None
    index: Tensor = field(init=False)

    def __post_init__(self) -> None:
        size = 0 if self.shown.part is None else len(self.shown.part)
        generator = torch.Generator().manual_seed(self.seed)
        self.index = torch.randperm(size, generator=generator)[:ROWS]
        if self.run.structure.needs_all:
            self.index = torch.arange(size)

    @cached_property
    def part(self) -> Part:
        """The rows that are shown: in random order, or all in theirs if the story needs all."""
        if self.shown.part is None:
            raise NotShown(f"{self.shown.remark} Give them: write_report(run, path, data).")
        structure, size = self.run.structure, len(self.shown.part)
        if structure.needs_all:
            fitted = size == self.run.data.rows and size <= WHOLE
            if structure.subsamples or not fitted:
                raise NotShown(f"Single rows cannot be shown: {structure.needs_all}.")
        part = self.shown.part.fixed(self.run.settings.seed).to("cpu")
        return part[self.index].in_memory()

    def number(self, row: int) -> int:
        """Which row of the source a shown one is, or of what was given, from 0."""
        place = self.index[row]
        return int(place if self.shown.rows is None else self.shown.rows[place])

    def beside(self, rows: Tensor) -> tuple[View, Tensor]:
        """Some rows of all, ``(N,)``, in a view of their own, and their places there."""
        other = View(self.run, self.shown, self.seed, self.label_names)
        if self.run.structure.needs_all:
            return other, rows
        other.index = rows
        return other, torch.arange(len(rows))

    def some(self, rows: int) -> Part:
        """The first rows that are shown, or all if the story needs all."""
        return self.part if self.run.structure.needs_all else self.part[:rows]

    @cached_property
    def labels(self) -> Labels | None:
        """Labels of the shown rows."""
        return labels_of(self.part, self.label_names or self.shown.label_names)

    @cached_property
    def observation(self) -> Site:
        """The observed site that is drawn."""
        site = self.run.structure.observation
        if site is None:
            raise NotShown("The story observes nothing inside a plate over the data.")
        return site

    @property
    def conditioned(self) -> bool:
        """Whether the programs take a column that they do not observe: a condition."""
        observed = sum(site.local for site in self.run.structure.observed)
        return len(self.run.data.columns) > max(observed, 1)

    @property
    def given(self) -> Tensor:
        """The second column, ``(N, *)``: what a story with a condition conditions on."""
        return self.part.columns[1]

    @property
    def told(self) -> bool:
        """Whether the programs take one number of each datum beside it, such as its label."""
        columns = self.run.data.columns
        return len(columns) > 1 and math.prod(columns[1][0]) == 1

    @cached_property
    def masked(self) -> bool:
        """Whether the condition is a mask: where it is True, an element is seen and not counted.

        That is found by trial: of two blank rows, nothing of the first is seen, all of the other.
        """
        run, columns = self.run, self.run.data.columns
        shape = columns[0][0] if columns else ()
        if not self.conditioned or not run.structure.takes_batches or not shape:
            return False
        if columns[1][0] != shape:
            return False
        batch = run.data.blank(2, run.device)
        batch[1][1] = 1
        with run.pair.active(), seeded(self.seed):
            _, model = trace_nodes(run.pair, batch, run.kwargs)
        counted = element_mask(model[self.observation.name]["fn"])
        unseen = ~batch[1].bool()
        return counted is not None and torch.equal(counted.expand_as(unseen), unseen)

    @property
    def seen(self) -> Tensor:
        """Which elements are seen, ``(N, *shape)``, where the condition is a mask."""
        return self.given.bool()

    @cached_property
    def column_names(self) -> tuple[str, ...]:
        """What the entries of an observation are called: column 1, 2, ... if the data do not say.

        A single number is called as its site is. They may come from anywhere: see :meth:`titles`
        for figures.
        """
        size = self.x.flatten(1).shape[1]
        for names in (self.shown.column_names, self.run.data.column_names):
            if names is not None and len(names) == size:
                return tuple(map(str, names))
        if size == 1:
            return (self.observation.name,)
        return tuple(f"column {c + 1}" for c in range(size))

    def titles(self, columns: Sequence[int]) -> list[str]:
        """Names of columns that can be drawn: simple and short ones as they are, others by number.

        See :meth:`untold` for those.
        """
        names = self.column_names
        return [names[c] if drawable(names[c]) else f"column {c + 1}" for c in columns]

    def untold(self, columns: Sequence[int]) -> str:
        """What is called by number in a figure, in a sentence for its caption, or nothing."""
        named = [(c, name) for c in columns if not drawable(name := self.column_names[c])]
        listed = "; ".join(f"column {c + 1} is {name}" for c, name in named)
        return f" Here {listed}." if named else ""

    @cached_property
    def code(self) -> Site:
        """The latent site whose values are the codes."""
        own = [site for site in self.run.structure.latents if site.local]
        alone = [site for site in own if not site.summed and len(site.plates) == 1]
        for size in (1, 0):
            for site in alone:
                if len(site.event_shape) == size and site.name in self.means:
                    return site
        names = ", ".join(site.name for site in own)
        raise NotShown(f"No latent of a datum ({names}) is a vector with a posterior mean.")

    @cached_property
    def means(self) -> dict[str, Tensor]:
        """Posterior means of every local latent that has one, by site."""
        sites = self.run.structure.sites
        return {n: mean.cpu() for n, mean in self.run.encode(self.part).items() if n in sites}

    @cached_property
    def draws(self) -> dict[str, Tensor]:
        """One draw of the posterior of every local latent, by site."""
        tree = self.run.posterior(self.part, draws=1, groups=("posterior",), seed=self.seed)
        local = (site.name for site in self.run.structure.latents if site.local)
        return {n: torch.as_tensor(np.asarray(tree["posterior"][n])[0, 0]) for n in local}

    @cached_property
    def shared(self) -> dict[str, Tensor]:
        """One draw of the posterior of every latent that all data share, by site."""
        run, batch = self.run, self.run.batch(self.part)
        with run.pair.active(), seeded(self.seed):
            guide, _ = trace_nodes(run.pair, batch, run.kwargs)
        names = [site.name for site in run.structure.latents if not site.local]
        return {name: guide[name]["value"] for name in names if name in guide}

    @cached_property
    def codes(self) -> Tensor:
        """Posterior means of the code, ``(N, d)``, in double precision."""
        codes = self.means[self.code.name].reshape(len(self.part), -1).double()
        if not codes.isfinite().all():
            raise NotShown("The codes are not finite: fit again with a lower learning rate.")
        return codes

    @property
    def drawn_codes(self) -> Tensor:
        """One draw of each row's code, ``(N, d)``: draws of the aggregate posterior."""
        return self.draws[self.code.name].reshape(len(self.part), -1).double()

    @cached_property
    def x(self) -> Tensor:
        """The observations as the model binds them, ``(N, *shape)``."""
        batch, run = self.run.batch(self.part), self.run
        with run.pair.active(), seeded(self.seed):
            values = Sampler(run.pair, run.structure, run.kwargs).observed(batch)
        return self._rows_first(values[self.observation.name])

    def drawn(self, rows: int) -> tuple[Tensor, Tensor | None]:
        """Observations that the story draws, ``(rows, *shape)``, and what their laws expect.

        With latents outside the data plate these are replicates of the first rows, given every
        latent's posterior: their prior would not know the data. Their expectations are not given.
        """
        run, name, some = self.run, self.observation.name, self.some(rows)
        if run.structure.has_globals:
            groups = ("posterior_predictive",)
            tree = run.posterior(some, draws=1, groups=groups, seed=self.seed)
            replicas = np.asarray(tree["posterior_predictive"][name])[0, 0]
            return self._rows_first(torch.as_tensor(replicas))[:rows], None
        drawn = run.sample(len(some), self.seed, data=some)
        own = {s.name: drawn[s.name] for s in run.structure.latents if s.local}
        means = run.decode(own, some).get(name) if own else None
        x = self._rows_first(drawn[name])[:rows]
        return x, None if means is None else self._rows_first(means)[:rows]

    def decoded(self, codes: Tensor, rows: Tensor) -> Tensor:
        """Expected observations, ``(M, *shape)``.

        Latents that all data share, and those of a datum that have no mean, are drawn once.

        Args:
            codes: Values of the code, ``(M, d)``.
            rows: Which datum gives the other latents and what the story conditions on, ``(M,)``.
        """
        held = self.means
        if any(s.local and s.name not in held for s in self.run.structure.latents):
            held = {**self.draws, **held}
        sites = self.run.structure.sites
        latents = {n: v.index_select(self._axis(sites[n]), rows) for n, v in held.items()}
        own = latents[self.code.name]
        latents[self.code.name] = codes.to(own.dtype).reshape(own.shape)
        latents = {name: value.to(self.run.device) for name, value in latents.items()}
        if self.run.structure.has_globals:
            latents.update(self.shared)
        means = self.run.decode(latents, self.part[rows])
        if self.observation.name not in means:
            law = self.observation.law
            raise NotShown(f"The law of an observation, {law}, has no mean to be drawn.")
        return self._rows_first(means[self.observation.name])

    @cached_property
    def reconstructed(self) -> Tensor:
        """What the story expects where each shown row's code is, ``(N, *shape)``."""
        return self.decoded(self.codes, torch.arange(len(self.part)))

    def spread_rows(self, count: int, among: Tensor | None = None) -> Tensor:
        """Rows that go evenly through the labels, smallest label first, ``(count,)`` at most.

        Args:
            count: How many.
            among: Which rows may be taken, booleans ``(N,)``; by default all.
        """
        size = len(self.part)
        order = (
            torch.arange(size) if self.labels is None else self.labels.values.argsort(stable=True)
        )
        order = order if among is None else order[among[order]]
        last = len(order) - 1
        return order[torch.linspace(0, last, min(count, len(order))).round().long()]

    def _rows_first(self, values: Tensor) -> Tensor:
        values = values.detach().cpu().movedim(self._axis(self.observation), 0)
        return values[:, None] if values.ndim == 1 else values

    def _axis(self, site: Site) -> int:
        data_plates = self.run.structure.data_plates
        return next(i for i, plate in enumerate(site.plates) if plate in data_plates)
