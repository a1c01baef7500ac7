"""What a mixture can do once its parameters have values: predictions, criteria, EM."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from ppl_gen.autoguides import Globals
from ppl_gen.chunks import in_chunks, one_thread, total
from ppl_gen.component import whole
from ppl_gen.covariances import Form
from ppl_gen.ellipses import Axes, Dense, Ellipses
from ppl_gen.errors import StoryError, refuse_if
from ppl_gen.mixtures import (
    FIRST_DF,
    Maximum,
    added,
    expectation,
    from_clusters,
    joint_density,
    maximisation,
)
from ppl_gen.quadratics import WIDE
from ppl_gen.story import Story, observations

# k-means looks at no more rows than these to find its centres.
ENOUGH = 100_000
# What a thread holds of some rows, in numbers: few enough for a cache, and so many that threads
# seldom meet at the interpreter's lock.
NUMBERS = 3 * 2**18


class MixtureStory(Story):
    """A story of components whose contours are ellipses, however it is told.

    Implements :class:`ppl_gen.story.Maximisable` and :class:`ppl_gen.story.OpenEnded`. Everything
    is at the centre of the posterior, in which ``globals`` holds values of the sites in units of
    ``center`` and ``spread``, all in double precision.

    Attributes:
        components: Number of components, K.
        open_ended: Whether it is still to be found.
        tied: Whether one covariance serves all components.
        heavy: Whether they are Student-t laws, with a site ``df``.
        missing: Whether NaN stands for a value that is missing.
        floor: The least standard deviation in any direction, in units of the spread.
        form: The form of the covariances.
        globals: The guide of weights, centres and so on.
        center: Means of the data, ``(D,)``.
        spread: Standard deviations of the data, ``(D,)``.
    """

    exchangeable: ClassVar[str | None] = "components"
    indices: ClassVar[tuple[str, ...]] = ("assignment",)
    takes_units: ClassVar[bool] = True
    in_chunks: ClassVar[bool] = True

    shape: tuple[int, ...]
    components: int
    open_ended: bool
    tied: bool
    heavy: bool
    missing: bool
    floor: float
    form: Form
    globals: Globals
    center: Tensor
    spread: Tensor
    _losses: Tensor | None = None

    def start(self, x: Tensor) -> None:
        """Begin with the clusters of k-means, the largest first, drawn from torch's generator.

        Args:
            x: Observations, shape ``(N, D)``; missing values count as the mean, here alone.

        Raises:
            StoryError: If there are fewer different rows than components.

        Reference:
            Arthur and Vassilvitskii (2007), k-means++
        """
        x = self._checked(x)
        empty = x.isnan().all(0)
        if empty.any():
            raise StoryError(
                "every column must have a value in some row, but column "
                f"{int(empty.nonzero()[0])} has none: leave it out"
            )
        with torch.no_grad():
            exact = x.double()
            center = exact.nanmean(0).nan_to_num()
            spread = (exact - center).square().nanmean(0).nan_to_num().sqrt()
            # What is constant but for rounding has no spread to measure by.
            spread = torch.where(spread > 1e-7 * center.abs(), spread, 1.0)
            if not self.form.per_feature:
                spread = spread.square().mean().sqrt().expand_as(spread)
            self.center.copy_(center)
            self.spread.copy_(spread)
            y = ((exact - center) / spread).nan_to_num()
            labels = clusters(y, self.components, "most" if self.open_ended else "components")
            self._move(from_clusters(y, labels, self.components, self.form, self.tied))

    def statistics(self, x: Tensor) -> dict[str, Tensor]:
        """The E-step, at the centre of the posterior: :func:`ppl_gen.mixtures.expectation`.

        Args:
            x: Observations, shape ``(N, D)``.

        Raises:
            StoryError: If the observations have another shape, or are not finite.
        """
        weights, components = self._law()

        def of_rows(part: slice) -> dict[str, Tensor]:
            y, log_volume = self._standardised(x, part)
            table = expectation(y, weights, components, losses=self.open_ended)
            return {**table, "log_likelihood": table["log_likelihood"] - log_volume.sum()}

        table = total(of_rows, added, *self._divided(x))
        if not table["log_likelihood"].isfinite():
            self._checked(x)
        return table

    def maximise(self, statistics: Mapping[str, Tensor]) -> None:
        """The M-step: centre the posterior on the maximum of the likelihood.

        Priors are not used; the rest of the posterior, such as its scales, stays as it is. While
        the number of components is open, their covariances lean towards the one they have in
        common, so that none shrinks to a few rows that happen to be near each other.

        Args:
            statistics: What :meth:`statistics` gave.
        """
        lean = self.shape[0] + 1 if self.open_ended else 0
        self._losses = statistics.get("loss")
        with one_thread(statistics["second"].numel()):
            before = self._present()
            found = maximisation(statistics, self.form, self.tied, self.floor, before, lean)
            self._move(found)

    def score(self, log_likelihood: float, rows: int) -> float:
        r"""Half of Schwarz's criterion, in nats.

        .. math:: \frac{T}{2} \log n - \log p(x)

        with :math:`T` free parameters. Message lengths, which price a component by the rows it has
        (Figueiredo, Leitao and Jain 1999, https://doi.org/10.1007/3-540-48432-9_5), find as many
        numbers in the plane, but in 10 dimensions keep components of a few dozen rows:
        benchmarks/gmm_auto.py, benchmarks/RESULTS.md.

        Args:
            log_likelihood: Of all rows, in nats.
            rows: How many rows.

        Reference:
            Schwarz (1978), https://doi.org/10.1214/aos/1176344136; for mixtures, Fraley and Raftery
            (2002), https://doi.org/10.1198/016214502760047131
        """
        return self._free() / 2 * math.log(rows) - log_likelihood

    def smaller(self) -> Self | None:
        """The same story without the component that the likelihood would miss the least."""
        if self.components == 1:
            return None
        losses = self.weights if self._losses is None else self._losses
        kept = [k for k in range(self.components) if k != int(losses.argmin())]
        return self._with(kept, components="auto", most=len(kept))

    def settled(self) -> Self:
        """The same story, its number of components fixed at what it is, the largest first."""
        order = self.weights.argsort(descending=True, stable=True).tolist()
        return self._with(order, components=self.components)

    def predict(self, x: Any) -> Tensor:
        """The likeliest component of each observation, ``(N,)``; ``x``: ``(N, D)``."""
        return self._of_joint(x, lambda joint, _: joint.argmax(-1))

    def predict_proba(self, x: Any) -> Tensor:
        """The probability of each component, ``(N, K)``; ``x``: ``(N, D)``."""
        return self._of_joint(x, lambda joint, _: joint.softmax(-1))

    def score_samples(self, x: Any) -> Tensor:
        """The log-density of each observation, in nats, ``(N,)``; ``x``: ``(N, D)``."""
        return self._of_joint(x, lambda joint, log_volume: joint.logsumexp(-1) - log_volume)

    def sample(self, rows: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
        """New observations, ``(rows, D)``, and their components, ``(rows,)``."""
        values = self.globals.centre()
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(seed)
            labels = torch.multinomial(values["weights"], whole("rows", rows), replacement=True)
            drawn = self._components(values).draw(labels)
        x = self.center + self.spread * drawn
        return x.to(torch.get_default_dtype()), labels

    def bic(self, x: Any) -> float:
        """Bayesian information criterion on ``x``, ``(N, D)``: the lower the better."""
        found = self.score_samples(x)
        return float(self._free() * math.log(len(found)) - 2 * found.sum())

    def aic(self, x: Any) -> float:
        """Akaike information criterion on ``x``, ``(N, D)``: the lower the better."""
        return float(2 * self._free() - 2 * self.score_samples(x).sum())

    @property
    def weights(self) -> Tensor:
        """Probabilities of the components, ``(K,)``."""
        return self.globals.centre()["weights"]

    @property
    def means(self) -> Tensor:
        """Centres of the components, ``(K, D)``."""
        return self.center + self.spread * self.globals.centre()["loc"]

    @property
    def covariances(self) -> Tensor:
        """Covariances of the components, or scale matrices of Student-t ones, ``(K, D, D)``."""
        covariance = self._root(self.globals.centre()).covariance
        covariance = covariance * self.spread.unsqueeze(-1) * self.spread
        return covariance.reshape(-1, *self.shape, *self.shape).expand(self.components, -1, -1)

    @property
    def df(self) -> Tensor | None:
        """Degrees of freedom of the components, ``(K,)``; None if they are normal."""
        return self.globals.centre()["df"] if self.heavy else None

    def _values(self, found: Maximum) -> dict[str, Tensor]:
        """Values of the sites in units of the spread, from parameters in these units."""
        values = {"weights": found.weights.clamp(min=1e-12), "loc": found.loc}
        values |= self.form.values(found.covariance[0] if self.tied else found.covariance)
        return values | ({"df": found.df} if self.heavy else {})

    def _move(self, found: Maximum) -> None:
        self.globals.move(self._values(found))

    def _present(self) -> Maximum:
        values = self.globals.centre()
        root = self._root(values)
        covariance = root.scale.square() if isinstance(root, Axes) else root.covariance
        df = values.get("df", torch.full_like(values["weights"], FIRST_DF))
        return Maximum(
            values["weights"], values["loc"], covariance if self.tied else covariance[0], df
        )

    def _root(self, values: Mapping[str, Tensor]) -> Axes | Dense:
        """The scale matrices, with a dimension for the rows, ``(*, 1, K, ...)``."""
        # Outside the plate of components a value has the rows' dimension, but none of components.
        left = -1 if self.tied else -2
        placed = {n: values[n].unsqueeze(left - e) for n, e in self.form.events.items()}
        return self.form.root(placed)

    def _components(self, latents: Mapping[str, Tensor]) -> Ellipses:
        df = latents["df"].unsqueeze(-2) if self.heavy else None
        return Ellipses(latents["loc"].unsqueeze(-3), self._root(latents), df, self.missing)

    def _law(self) -> tuple[Tensor, Ellipses]:
        """Weights and components at the centre of the posterior."""
        (features,) = self.shape
        with torch.no_grad(), one_thread(self.components * features**2):
            values = self.globals.centre()
            components = self._components(values)
            _ = components.complete  # kept by them: found once, before threads ask
        return values["weights"], components

    def _of_joint(self, x: Any, of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Of log-densities with each component, ``(N, K)``, and the log-volumes of their units."""
        x = self._checked(x if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x)))
        weights, components = self._law()

        def of_rows(part: slice) -> Tensor:
            y, log_volume = self._standardised(x, part)
            return of(joint_density(y, weights, components), log_volume)

        return torch.cat(list(in_chunks(of_rows, *self._divided(x))))

    def _divided(self, x: Tensor) -> tuple[int, int, torch.device]:
        """How many rows to take, how many at a time, and where; one empty slice of none."""
        (features,), size = self.shape, max(1, len(x)) if x.dim() else 1
        held = features + 1
        if self.form.products and self.missing:
            held *= self.components * features
        elif self.form.products and features <= WIDE:
            held *= features / 2
        rows = max(1, NUMBERS // int(held + 6 * self.components))
        # Long vectors that begin a power of two apart would drive each other out of the cache.
        rows = (rows // 8 | 1) * 8 if rows > 8 else rows
        return size, rows, self.center.device

    def _standardised(self, x: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        """Some rows in units of the spread, ``(n, D)``, and the log-volume of these, ``(n,)``."""
        exact = observations(x[part], self.shape).to(self.center)
        y = (exact - self.center).div_(self.spread)
        log_spread = self.spread.log()
        if self.missing:
            return y, torch.where(y.isnan(), 0.0, log_spread).sum(-1)
        return y, log_spread.sum().expand(len(y))

    def _checked(self, x: Tensor) -> Tensor:
        """Rows once they can be scored."""
        x = observations(x, self.shape)
        # A sum takes a fraction of the time of looking at every value, and is seldom not finite.
        refuse_if(~x.sum().isfinite(), lambda: self._not_finite(x))
        return x

    def _not_finite(self, x: Tensor) -> StoryError | None:
        wrong = x.isinf() if self.missing else ~x.isfinite()
        if not wrong.any():
            return None
        row, column = wrong.nonzero()[0].tolist()
        remedy = "clip it or leave the row out"
        if not self.missing:
            remedy += "; if NaN stands for a missing value, give the story missing='integrate'"
        return StoryError(
            f"every value must be {'finite or missing' if self.missing else 'finite'}, got "
            f"{x[row, column].item()} in row {row}, feature {column}: {remedy}"
        )

    def _free(self) -> int:
        each = self.shape[0] + self.heavy
        covariances = 1 if self.tied else self.components
        return self.components * (1 + each) - 1 + covariances * self.form.free

    def _with(self, kept: list[int], **changed: Any) -> Self:
        """The story with other arguments, the components in the order given carried over."""
        story = type(self)(**{**copy.deepcopy(self.arguments), **changed}).to(self.center.device)
        story.center.copy_(self.center)
        story.spread.copy_(self.spread)
        common = set(self.form.events) if self.tied else set()
        values = self.globals.centre()
        values = {n: v if n in common else v[kept] for n, v in values.items()}
        values["weights"] = values["weights"] / values["weights"].sum()
        story.globals.move(values)
        return story


def clusters(y: Tensor, count: int, noun: str = "components") -> Tensor:
    """Clusters of rows by k-means, begun by k-means++ from torch's generator.

    Args:
        y: Rows, ``(N, D)``.
        count: How many clusters.
        noun: What their number is called, for the message.

    Returns:
        Labels, ``(N,)``, 0 for the largest cluster.

    Raises:
        StoryError: If there are fewer different rows than clusters.
    """
    from sklearn.cluster import KMeans

    seed = int(torch.randint(2**31, ()))
    some = y[torch.randperm(len(y), device=y.device)[:ENOUGH]] if len(y) > ENOUGH else y
    labels = torch.zeros(len(y), dtype=torch.long)
    if len(some) >= count:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of too few different rows, which is looked at below
            options: Any = {"n_init": 1, "random_state": seed}
            found = KMeans(count, **options).fit(some.cpu().numpy())
        labels = torch.as_tensor(found.predict(y.cpu().numpy()), dtype=torch.long)
    sizes = labels.bincount(minlength=count)
    if not sizes.all() and (rows := len(y.unique(dim=0))) < count:
        raise StoryError(
            f"{noun} must be at most the number of different rows, {rows}, got {count}: lower it"
        )
    return sizes.argsort(descending=True, stable=True).argsort()[labels].to(y.device)
