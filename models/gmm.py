"""The mixture of normals, Bayesian or not, and its Student-t sibling."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Literal, Self

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from ppl_gen import mixture_priors as priors
from ppl_gen import networks
from ppl_gen.autoguides import Globals, InUnits
from ppl_gen.component import choice, positive, whole, whole_sizes
from ppl_gen.covariances import form
from ppl_gen.ellipses import Assigned, Mixture
from ppl_gen.mixture_priors import DfPrior, LocPrior, ScalePrior
from ppl_gen.mixture_story import MixtureStory
from ppl_gen.mixtures import FIRST_DF, Maximum

CovarianceKind = Literal["full", "tied", "diagonal", "spherical"]
Law = Literal["normal", "student-t"]
Assignment = Literal["summed", "enumerated", "amortised"]
Missing = Literal["refuse", "integrate"]

# Names of a site's event dimensions.
FEATURES = ("features", "features_2")
# How the encoder is brought to agree with the first clusters: steps, their size, and on how many
# rows. Untaught, it would pull all components to the mean before it can tell them apart.
LESSONS, PACE, CLASS = 300, 0.01, 1000
MOST_BYTES = 4e9  # of covariances, of which EM has several at a time


class GMM(MixtureStory):
    """A mixture: an observation comes from one of K normal (or Student-t) components.

    The story, in units of the data's own mean and spread (standard deviation)::

        weights ~ Dirichlet(concentration)            # (K,)
        for each component:
            loc ~ Normal(mean, 3 spread)              # centre                  (D,)
            scale ~ LogNormal(log(spread / 2), 1)     # standard deviations     (D,)
            correlation ~ LKJ(1)                      # its Cholesky factor     (D, D)
            df ~ Gamma(2, 0.1)                        # Student-t only          ()
        for each observation:
            assignment ~ Categorical(weights)         # which component         ()
            x ~ Normal(loc, scale, correlation)       # of that component       (D,)

    A diagonal covariance has no correlation, a spherical one a single scale as well, and a tied
    one is the same for all components. Mean and spread are taken from the data by ``start``; where
    spherical, the spread is the root mean square of the features'. With
    ``covariance_prior="inverse-wishart"`` one site, ``precision`` ~ Wishart, takes the place of
    scale and correlation.

    The guide::

        weights, loc, ... ~ posterior()                    # one of Pyro's autoguides
        assignment ~ Categorical(encoder(x))               # where amortised

    Globals are points (map: the maximum of the posterior density; ml: that of the likelihood, for
    which the priors are not counted), or have a posterior. The assignment is summed out exactly in
    the density of ``x``, or by Pyro: enumerated in the model, or, amortised, in a guide that
    guesses it from ``x`` (a lower bound). ``predict``, ``means`` and the like are at the centre of
    the posterior.

    EM (``fit(..., method="em")``) is maximum likelihood and uses no prior. The eigenvalues of the
    covariances stay above ``floor ** 2``, in units of the spread.

    Args:
        shape: Shape of one observation, one size: (D,).
        components: How many; or auto, to begin with ``most`` and to drop what is not needed.
        covariance: full, tied, diagonal or spherical.
        law: Law of a component: normal or student-t.
        assignment: Which component: summed, enumerated or amortised.
        posterior: Of weights, centres and so on: map, ml, normal, full, or the name of one of
            Pyro's autoguides, such as AutoLowRankMultivariateNormal.
        missing: Whether to refuse NaN, or to integrate it out as a missing value.
        concentration: Of the Dirichlet law of the weights: 1 prefers none, above 1 equal ones.
        loc_prior: Law of the centres: normal(scale=3), in units of the spread.
        scale_prior: Law of the scales: log-normal(median=0.5, scale=1), half-normal(scale=1) or
            half-cauchy(scale=0.5), in units of the spread.
        covariance_prior: lkj(concentration=1) for correlations, or inverse-wishart(df=D+2,
            scale=0.5) for scales as well; for full and tied.
        df_prior: Law of the degrees of freedom: gamma(shape=2, rate=0.1).
        floor: For EM, the least standard deviation in any direction, in units of the spread.
        most: With components auto, how many to begin with.
        hidden: Units of each layer of the encoder, where amortised.

    Raises:
        ValueError: If ``shape`` does not hold exactly one size, a size is below 1, a number is not
            positive, or a name is unknown.
        TypeError: If an argument is of another type.

    Reference:
        McLachlan and Peel (2000), Finite Mixture Models; Gelman et al. (2013), chapter 22
    """

    def __init__(
        self,
        shape: Sequence[int],
        components: int | Literal["auto"] = 3,
        *,
        covariance: CovarianceKind = "full",
        law: Law = "normal",
        assignment: Assignment = "summed",
        posterior: str = "map",
        missing: Missing = "refuse",
        concentration: float = 1.0,
        loc_prior: str | LocPrior = "normal",
        scale_prior: str | ScalePrior = "log-normal",
        covariance_prior: str = "lkj",
        df_prior: str | DfPrior = "gamma",
        floor: float = 1e-3,
        most: int = 20,
        hidden: tuple[int, ...] = (64,),
    ) -> None:
        super().__init__()
        self.shape = whole_sizes("shape", shape)
        if len(self.shape) != 1:
            raise ValueError(
                "shape must hold one size, the number of features, "
                f"got {self.shape}: flatten the observations"
            )
        (features,) = self.shape
        self.open_ended = components == "auto"
        self.components = whole("most", most) if self.open_ended else _number(components)
        self.tied = choice("covariance", covariance, CovarianceKind) == "tied"
        self.heavy = choice("law", law, Law) == "student-t"
        self.assignment = choice("assignment", assignment, Assignment)
        self.missing = choice("missing", missing, Missing) == "integrate"
        self.counts_priors = posterior != "ml"
        self.concentration = positive("concentration", concentration)
        self.floor = positive("floor", floor)
        self.loc_prior = priors.part(loc_prior, priors.LOC_PRIORS, "loc_prior")
        self.df_prior = priors.part(df_prior, priors.DF_PRIORS, "df_prior")
        self.form = form(covariance, features, scale_prior, covariance_prior)
        if self.form.products and 8 * self.components * features**2 > MOST_BYTES:
            raise ValueError(
                f"covariance must be 'diagonal' or 'spherical' with {features:,} features, "
                f"got {covariance!r}, which would take {8e-9 * features**2:,.0f} GB a component"
            )
        events = {"loc": 1, "x": 1, **self.form.events}
        named = {name: FEATURES[:count] for name, count in events.items() if count}
        # Which sites there are depends on the arguments: no class can name their dimensions.
        named = {"weights": ("components",), **named}
        self.dims = named
        # In double precision: a correlation near 1 leaves little of a float32, and EM's likelihood
        # must not fall by rounding. They are few.
        self.register_buffer("center", torch.zeros(features, dtype=torch.double))
        self.register_buffer("spread", torch.ones(features, dtype=torch.double))
        self.globals = Globals(posterior, self._standard_latents, self._first_values())
        if self.assignment == "amortised":
            inputs = 2 * features if self.missing else features
            self.encoder = networks.mlp(inputs, hidden, self.components)

    def start(self, x: Tensor) -> None:
        """Begin with the clusters of k-means, and with an encoder that knows them.

        Args:
            x: Observations, shape ``(N, D)``.

        Raises:
            StoryError: If there are fewer different rows than components.
        """
        super().start(x)
        if self.assignment == "amortised":
            self._teach(x[torch.randperm(len(x), device=x.device)[:CLASS]])

    def settled(self) -> Self:
        """The same story, its number of components fixed at what it is, the largest first."""
        story = super().settled()
        if story.assignment == "amortised":
            story._teach(story.sample(CLASS)[0])
        return story

    def model(self, x: Tensor) -> None:
        """The story.

        Args:
            x: Observations, shape ``(N, D)``.

        Raises:
            StoryError: If the observations have another shape, or are not finite.
        """
        x = self._checked(x)
        with self._counted():
            latents = self._latents(self.center, self.spread)
        components = self._components(latents)
        weights = latents["weights"].to(x.dtype)
        with pyro.plate("observations", len(x)):
            if self.assignment == "summed":
                pyro.sample("x", Mixture(weights, components), obs=x)
                return
            infer: Any = {"enumerate": "parallel"} if self.assignment == "enumerated" else {}
            assignment = pyro.sample("assignment", dist.Categorical(weights), infer=infer)
            pyro.sample("x", Assigned(assignment, components), obs=x)

    def guide(self, x: Tensor) -> None:
        """The story read backwards.

        Args:
            x: Observations, shape ``(N, D)``.

        Raises:
            StoryError: If the observations have another shape, or are not finite.
        """
        x = self._checked(x)
        loc = (self.center, self.spread, self.spread.log().sum())
        units = {"loc": loc, **self.form.units(self.spread)}
        with self._counted(), InUnits(units, self.globals.points):
            self.globals()
        if self.assignment == "amortised":
            law = dist.Categorical(logits=self.encoder(self._shown(x)).to(x.dtype))
            with pyro.plate("observations", len(x)):
                pyro.sample("assignment", law, infer={"enumerate": "parallel"})

    def _latents(self, center: Tensor, spread: Tensor) -> dict[str, Tensor]:
        # While their number is open, most components are expected to be of no use.
        concentration = 1 / self.components if self.open_ended else self.concentration
        law = dist.Dirichlet(center.new_full((self.components,), concentration))
        latents = {"weights": pyro.sample("weights", law)}
        if self.tied:
            latents |= self.form.sample(spread)
        with pyro.plate("components", self.components):
            latents["loc"] = pyro.sample("loc", self.loc_prior(center, spread).to_event(1))
            if not self.tied:
                latents |= self.form.sample(spread)
            if self.heavy:
                latents["df"] = pyro.sample("df", self.df_prior(center))
        return latents

    def _standard_latents(self) -> None:
        self._latents(torch.zeros_like(self.center), torch.ones_like(self.spread))

    def _first_values(self) -> dict[str, Tensor]:
        """Components at random about the mean, half as wide as the data."""
        count, features = self.components, self.shape[0]
        weights = self.center.new_full((count,), 1 / count)
        scatter = torch.full_like(self.center, 0.25)
        scatter = scatter.diag() if self.form.products else scatter
        covariance = scatter.expand(1 if self.tied else count, *scatter.shape)
        loc = torch.randn(count, features).to(weights)
        df = torch.full_like(weights, FIRST_DF)
        return self._values(Maximum(weights, loc, covariance, df))

    def _teach(self, x: Tensor) -> None:
        """Bring the encoder to agree with the components as they are, on these rows."""
        shown, answers = self._shown(self._checked(x)), self.predict_proba(x)
        optimizer = torch.optim.Adam(self.encoder.parameters(), PACE)
        for _ in range(LESSONS):
            optimizer.zero_grad()
            nn.functional.cross_entropy(self.encoder(shown), answers.to(shown)).backward()
            optimizer.step()
        optimizer.zero_grad()

    def _counted(self) -> Any:
        return contextlib.nullcontext() if self.counts_priors else poutine.mask(mask=False)

    def _shown(self, x: Tensor) -> Tensor:
        """What the encoder sees: standardised values, and which are there if some may not be."""
        y = ((x - self.center) / self.spread).to(torch.get_default_dtype())
        return torch.cat([y.nan_to_num(), y.isnan().to(y)], -1) if self.missing else y


def _number(components: Any) -> int:
    if isinstance(components, str):
        raise ValueError(f"components must be a whole number or 'auto', got {components!r}")
    return whole("components", components)
