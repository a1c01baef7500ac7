"""Pyro's autoguides as parts of a story: a guide of the latents that stand outside the data."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta, TransformModule
from pyro.distributions.transforms import ComposeTransformModule
from pyro.infer import autoguide as autoguides
from pyro.infer.autoguide import AutoContinuous, AutoDelta, AutoGuide, AutoNormal, init_to_value
from pyro.infer.autoguide.guides import AutoNormalizingFlow
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import biject_to, constraints, transform_to

# Short names; "ml" has the guide of "map", and it is for the story to leave the priors out.
POSTERIORS = {
    "map": "AutoDelta",
    "ml": "AutoDelta",
    "normal": "AutoNormal",
    "full": "AutoMultivariateNormal",
}

# Standard deviation of a guide at first, where latents are of order 1: near its centre, and so
# wide that a gradient is felt.
FIRST_SCALE = 0.05


class Globals(nn.Module):
    """A guide of global latents: one of Pyro's autoguides, complete as soon as it is built.

    An autoguide makes its parameters when it is first run, keeps them in Pyro's parameter store
    under names that every story shares, and cannot be copied while it holds its model. This one is
    run once when built, forgets the model, and keeps its parameters to itself.

    Args:
        spec: map, ml, normal, full, or the name of an autoguide of Pyro's with a law of its own,
            such as AutoLowRankMultivariateNormal or AutoIAFNormal.
        latents: A program that samples the latents, in units in which they are of order 1.
        first: First values of the latents, by name; the guide is centred on them.

    Raises:
        ValueError: If Pyro has no such autoguide, or it cannot guide these latents.
        TypeError: If ``spec`` is not a string.
    """

    def __init__(self, spec: str, latents: Callable[[], Any], first: Mapping[str, Tensor]) -> None:
        super().__init__()
        kind = _class_of(spec)
        offered = {"init_loc_fn": init_to_value(values=dict(first)), "init_scale": FIRST_SCALE}
        if issubclass(kind, AutoNormalizingFlow):
            offered = {}
        taken = inspect.signature(kind).parameters
        options = {name: value for name, value in offered.items() if name in taken}
        try:
            self.auto: Any = kind(latents, **options)
            with torch.no_grad(), _own_store(), poutine.block():
                self.auto()
        except (AssertionError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"posterior {spec!r} cannot guide these latents ({error}): take one of "
                f"{', '.join(POSTERIORS)}"
            ) from error
        # Once it has been run it needs the model no more, only what it has noted of its sites.
        self.auto._model = (_no_model,)
        if isinstance(self.auto, AutoNormalizingFlow):
            placed = _Placed(self._flat(first))
            flow: Any = self.auto.transform
            self.auto.transform = ComposeTransformModule([flow, placed])
        self.move(first)

    def __getstate__(self) -> dict[str, Any]:
        # What a flow remembers of its last draw is part of a graph, which cannot be copied.
        for module in self.modules():
            for name in [n for n in vars(module) if n.startswith("_cached_")]:
                setattr(module, name, (None, None) if name == "_cached_x_y" else None)
        return self.__dict__.copy()

    @property
    def points(self) -> bool:
        """Whether the guide puts all its mass on one value of each latent."""
        return isinstance(self.auto, AutoDelta)

    def forward(self) -> dict[str, Tensor]:
        """Sample every latent, by ``pyro.sample``; the values by name."""
        with _own_store():
            return self.auto()

    def centre(self) -> dict[str, Tensor]:
        """The point that the guide is centred on, by name, without a gradient.

        Of points it is they; of a normal law of unconstrained values, the image of its mean; of a
        flow, the image of the point that its last layer shifts the origin to.
        """
        values = {}
        with torch.no_grad():
            if isinstance(self.auto, AutoContinuous):
                unpacked: Any = self.auto._unpack_latent(self._loc.detach())
                return {site["name"]: biject_to(site["fn"].support)(raw) for site, raw in unpacked}
            constrain = transform_to if self.points else biject_to
            for name, site in self._sites.items():
                values[name] = constrain(site["fn"].support)(self._raw(name).detach()).clone()
        return values

    def move(self, values: Mapping[str, Tensor]) -> None:
        """Centre the guide on a point, every parameter tensor staying the one it is.

        Args:
            values: A value of every latent, by name.
        """
        with torch.no_grad():
            if isinstance(self.auto, AutoContinuous):
                self._loc.copy_(self._flat(values))
                return
            constrain = transform_to if self.points else biject_to
            for name, site in self._sites.items():
                self._raw(name).copy_(constrain(site["fn"].support).inv(values[name]))

    @property
    def _sites(self) -> dict[str, Any]:
        return dict(self.auto.prototype_trace.iter_stochastic_nodes())

    @property
    def _loc(self) -> Tensor:
        flow = isinstance(self.auto, AutoNormalizingFlow)
        return self.auto.transform[-1].loc if flow else self.auto.loc

    def _raw(self, name: str) -> Tensor:
        # The parameter itself: asking for it by its own name gives what it is mapped to.
        holder = self.auto if self.points else self.auto.locs
        return getattr(holder, f"{name}_unconstrained")

    def _flat(self, values: Mapping[str, Tensor]) -> Tensor:
        sites = self._sites.items()
        parts = [biject_to(site["fn"].support).inv(values[name]) for name, site in sites]
        return torch.cat([part.flatten() for part in parts])


class InUnits(Messenger):
    """Give the sites of a guide the units of the data.

    A value ``v`` becomes ``shift + factor * v``. A law's density changes with it; that of a point,
    which is one by convention, does not.

    Args:
        units: Shift, factor, and the logarithm of the change of volume, by name of the site.
        points: Whether the guide gives points.
    """

    def __init__(self, units: Mapping[str, tuple[Tensor, Tensor, Tensor]], points: bool) -> None:
        super().__init__()
        self.units = units
        self.points = points

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] not in self.units:
            return
        shift, factor, log_volume = self.units[msg["name"]]
        law = msg["fn"]
        log_density = law.log_density if self.points else law.log_density - log_volume
        msg["fn"] = Delta(shift + factor * law.v, log_density, event_dim=law.event_dim)


class _Placed(TransformModule):
    """Shift and stretch what a flow gives, so that it begins as a narrow law about a point."""

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, loc: Tensor) -> None:
        # What was drawn is found again when scored: the flow before need not be inverted.
        super().__init__(cache_size=1)
        self.loc = nn.Parameter(loc.clone())
        self.log_scale = nn.Parameter(torch.full_like(loc, math.log(FIRST_SCALE)))

    def _call(self, x: Tensor) -> Tensor:
        return self.loc + self.log_scale.exp() * x

    def _inverse(self, y: Tensor) -> Tensor:
        # Pyro's flows invert what is of the default precision only.
        return ((y - self.loc) / self.log_scale.exp()).to(torch.get_default_dtype())

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self.log_scale.sum().expand(x.shape[:-1])


def _class_of(spec: str) -> type[AutoGuide]:
    if not isinstance(spec, str):
        raise TypeError(f"posterior must be a name such as 'map', got {spec!r}")
    name = POSTERIORS.get(spec, spec)
    kind = getattr(autoguides, name, None) if name in autoguides.__all__ else None
    usable = isinstance(kind, type) and issubclass(kind, AutoDelta | AutoNormal | AutoContinuous)
    if not usable or kind is AutoContinuous:
        raise ValueError(
            f"posterior must be one of {', '.join(POSTERIORS)}, or the name of an autoguide of "
            f"Pyro's such as AutoLowRankMultivariateNormal or AutoIAFNormal, got {spec!r}"
        )
    return kind  # type: ignore[return-value]


@contextmanager
def _own_store() -> Iterator[None]:
    """An empty parameter store: what an autoguide puts there is in its module as well."""
    with pyro.get_param_store().scope():
        yield


def _no_model() -> None:
    """In place of an autoguide's model."""
