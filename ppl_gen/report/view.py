"""What a report looks at: a run, some rows of data, and what the run makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ppl_gen.data import Dataset, Part, as_part, load
from ppl_gen.errors import PplGenError
from ppl_gen.inference.passes import Sampler
from ppl_gen.inference.run import Run
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.structure import Site

ROWS = 500
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
    """The labels of a part, if it has a column of one number each.

    Whole numbers are classes if there are at most 20 of them; all else is continuous.
    """
    y = part.y
    if y is None or y[0].numel() != 1 or y.is_complex():
        return None
    values = y.detach().reshape(-1).double().cpu()
    if not values.isfinite().all():
        return None
    classes = values.unique().tolist()
    if y.is_floating_point() or len(classes) > CLASSES:
        return Labels(values, None)
    known = dict(enumerate(map(str, label_names or ())))
    return Labels(values, {int(c): known.get(int(c), str(int(c))) for c in classes})


@dataclass(frozen=True)
class Shown:
    """The data that a report is given, or found by itself.

    Attributes:
        name: What they are called.
        part: All of their rows; None if there are none to be had.
        label_names: What the classes are called, class 0 first.
        remark: Why there are none, or what is odd about them.
    """

    name: str
    part: Part | None = None
    label_names: Sequence[str] | None = None
    remark: str = ""


def data_to_show(run: Run, data: Any = None) -> Shown:
    """Take the data given, or load those of the fit again if they are known by name.

    Raises:
        DataError: If data are given and are of no known kind.
    """
    fitted = _short(str((run.data.source or {}).get("name_or_path", "data")))
    if data is not None and not isinstance(data, Dataset):
        return Shown(fitted, as_part(data))
    if data is None and run.data.source is None:
        return Shown(fitted, remark="No data were given, and the run cannot load its own again.")
    remark = ""
    if data is None:
        try:
            data = load(**{**run.data.source, "download": False})
        except PplGenError as error:
            return Shown(fitted, remark=f"The data of the fit cannot be loaded again: {error}.")
        if data.train.fingerprint != run.data.fingerprint:
            remark = "The data of this name are no longer those of the fit."
    return Shown(_short(data.name), data.test, data.label_names, remark)


def _short(name: str) -> str:
    """A name without the folders of the machine it was made on."""
    return Path(name).name or name


@dataclass
class View:
    """A run, up to 500 rows of data, and what the run makes of them, each computed once.

    Which sites to show is found in the traced structure: the first observed site inside the data
    plate, and the first latent one there whose value is a vector.

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

    @cached_property
    def part(self) -> Part:
        """The rows that are shown, in random order."""
        if self.shown.part is None:
            raise NotShown(f"{self.shown.remark} Give them: write_report(run, path, data).")
        if not self.run.structure.takes_batches:
            raise NotShown(
                "The story takes all of its data at once, so single rows cannot be shown."
            )
        return self.shown.part.fixed(self.run.settings.seed).to("cpu")[self.index]

    @cached_property
    def labels(self) -> Labels | None:
        """Labels of the shown rows."""
        return labels_of(self.part, self.label_names or self.shown.label_names)

    @cached_property
    def observation(self) -> Site:
        """The observed site that is drawn."""
        for site in self.run.structure.observed:
            if site.local:
                return site
        raise NotShown("The story observes nothing inside a plate over the data.")

    @cached_property
    def code(self) -> Site:
        """The latent site whose values are the codes."""
        own = [site for site in self.run.structure.latents if site.local]
        if not own:
            raise NotShown("The story has no latent of its own for each datum: there is no code.")
        alone = [site for site in own if not site.summed and len(site.plates) == 1]
        for size in (1, 0):
            for site in alone:
                if len(site.event_shape) == size and site.name in self.posterior_means:
                    return site
        names = ", ".join(site.name for site in own)
        raise NotShown(f"No latent of a datum ({names}) is a vector with a posterior mean.")

    @cached_property
    def posterior_means(self) -> dict[str, Tensor]:
        """Posterior means of every local latent that has one, by site."""
        return {name: mean.cpu() for name, mean in self.run.encode(self.part).items()}

    @cached_property
    def codes(self) -> Tensor:
        """Posterior means of the code, ``(N, d)``, in double precision."""
        codes = self.posterior_means[self.code.name].reshape(len(self.part), -1).double()
        if not codes.isfinite().all():
            raise NotShown("The codes are not finite: fit again with a lower learning rate.")
        return codes

    @cached_property
    def drawn_codes(self) -> Tensor:
        """One draw of the posterior for each row, ``(N, d)``: draws of the aggregate posterior."""
        tree = self.run.posterior(self.part, draws=1, groups=("posterior",), seed=self.seed)
        values = torch.as_tensor(tree["posterior"][self.code.name].values[0, 0])
        return values.reshape(len(self.part), -1).double()

    @cached_property
    def x(self) -> Tensor:
        """The observations as the model binds them, ``(N, *shape)``."""
        batch, run = self.run.batch(self.part), self.run
        with run.pair.active(), seeded(self.seed):
            values = Sampler(run.pair, run.structure, run.kwargs).observed(batch)
        return self._rows_first(values[self.observation.name])

    def drawn(self, rows: int) -> Tensor:
        """Observations that the story draws, ``(rows, *shape)``.

        With latents outside the data plate these are replicates of the first rows, given every
        latent's posterior: their prior would not know the data.
        """
        name, some = self.observation.name, self.part[:rows]
        if not self.run.structure.has_globals:
            return self._rows_first(self.run.sample(rows, self.seed, data=some)[name])
        groups = ("posterior_predictive",)
        tree = self.run.posterior(some, draws=1, groups=groups, seed=self.seed)
        return self._rows_first(torch.as_tensor(tree["posterior_predictive"][name].values[0, 0]))

    def expected(self, rows: int) -> Tensor | None:
        """What the laws of the same draws expect, ``(rows, *shape)``, where that can be said."""
        structure, some = self.run.structure, self.part[:rows]
        own = [site.name for site in structure.latents if site.local]
        if structure.has_globals or not own:
            return None
        drawn = self.run.sample(rows, self.seed, data=some)
        means = self.run.decode({name: drawn[name] for name in own}, some)
        found = means.get(self.observation.name)
        return None if found is None else self._rows_first(found)

    def decoded(self, codes: Tensor, rows: Tensor) -> Tensor:
        """Expected observations, ``(M, *shape)``.

        Args:
            codes: Values of the code, ``(M, d)``.
            rows: Which datum gives the other latents and what the story conditions on, ``(M,)``.
        """
        latents = {
            name: mean.index_select(self._axis(self.run.structure.sites[name]), rows)
            for name, mean in self.posterior_means.items()
        }
        own = latents[self.code.name]
        latents[self.code.name] = codes.to(own.dtype).reshape(own.shape)
        on_device = {name: value.to(self.run.device) for name, value in latents.items()}
        means = self.run.decode(on_device, self.part[rows])
        if self.observation.name not in means:
            law = self.observation.law
            raise NotShown(f"The law of an observation, {law}, has no mean to be drawn.")
        return self._rows_first(means[self.observation.name])

    @cached_property
    def reconstructed(self) -> Tensor:
        """What the story expects where each shown row's code is, ``(N, *shape)``."""
        return self.decoded(self.codes, torch.arange(len(self.part)))

    def spread_rows(self, count: int) -> Tensor:
        """Rows that go evenly through the labels, smallest label first, ``(count,)`` at most."""
        size = len(self.part)
        order = (
            torch.arange(size) if self.labels is None else self.labels.values.argsort(stable=True)
        )
        return order[torch.linspace(0, size - 1, min(count, size)).round().long()]

    def _rows_first(self, values: Tensor) -> Tensor:
        return values.detach().cpu().movedim(self._axis(self.observation), 0)

    def _axis(self, site: Site) -> int:
        data_plates = self.run.structure.data_plates
        return next(i for i, plate in enumerate(site.plates) if plate in data_plates)
