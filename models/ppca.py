"""Probabilistic principal component analysis, where everything has a closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints, transform_to

from ppl_gen.component import whole, whole_sizes
from ppl_gen.priors import StandardNormal
from ppl_gen.story import Story, observations


class PPCA(Story):
    r"""Probabilistic PCA: an observation is a code, mapped linearly, seen through normal noise.

    The story, for each observation::

        z ~ Normal(0, I)                       # code         (latent,)
        x ~ Normal(weight z + loc, scale^2 I)  # observation  (D,)

    The guide, linear in the observation, with one covariance for all::

        z ~ Normal(guide_weight (x - guide_loc), L L^T)

    The guide has parameters of its own, and the exact posterior is among its members: a fit can
    close the gap between ELBO and evidence completely. The evidence, the posterior and the
    maximum of the likelihood are known in closed form, which makes PPCA the yardstick for fits
    and for checks.

    Args:
        shape: Shape of one observation, one size: (D,).
        latent: Size of the latent code.

    Raises:
        ValueError: If ``shape`` does not hold exactly one size, or a size is below 1.
        TypeError: If ``shape`` is not a sequence of whole numbers.

    Reference:
        Tipping and Bishop (1999), https://doi.org/10.1111/1467-9868.00196
    """

    def __init__(self, shape: Sequence[int], latent: int = 2) -> None:
        super().__init__()
        self.shape = whole_sizes("shape", shape)
        self.latent = whole("latent", latent)
        if len(self.shape) != 1:
            raise ValueError(
                "shape must hold one size, the number of features, "
                f"got {self.shape}: flatten the observations"
            )
        (features,) = self.shape
        self.prior = StandardNormal(latent)
        self.weight = nn.Parameter(torch.randn(features, latent) / math.sqrt(latent))
        self.loc = nn.Parameter(torch.zeros(features))
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.guide_weight = nn.Parameter(torch.zeros(latent, features))
        self.guide_loc = nn.Parameter(torch.zeros(features))
        self.guide_raw_tril = nn.Parameter(torch.zeros(latent, latent))

    @classmethod
    def maximum_likelihood(cls, x: Tensor, latent: int = 2) -> Self:
        r"""The story of highest likelihood for these observations, its guide exact.

        With :math:`\lambda_i, u_i` the eigenvalues, in descending order, and eigenvectors of the
        covariance of ``x`` (divided by :math:`N`):

        .. math::
            \sigma^2 = \frac{1}{D - q} \sum_{i > q} \lambda_i, \qquad
            W = U_q (\Lambda_q - \sigma^2 I)^{1/2}

        Args:
            x: Observations, shape ``(N, D)``.
            latent: Size of the latent code, :math:`q`.

        Raises:
            ValueError: If ``x`` is not of shape ``(N, D)``, ``latent`` is not from 1 to
                ``D - 1``, or ``latent`` directions explain ``x`` without error, so that the
                likelihood has no maximum.

        Reference:
            Tipping and Bishop (1999), section 3.2
        """
        if x.ndim != 2 or len(x) == 0:
            raise ValueError(f"x must be of shape (N, D), got {tuple(x.shape)}")
        features = x.shape[1]
        if whole("latent", latent) >= features:
            raise ValueError(f"latent must be below the {features} features, got {latent}")
        exact = x.detach().double()
        loc = exact.mean(0)
        eigenvalues, eigenvectors = torch.linalg.eigh((exact - loc).T @ (exact - loc) / len(x))
        variance = eigenvalues[:-latent].mean()
        if variance <= torch.finfo(torch.float32).eps * eigenvalues[-1]:
            raise ValueError(
                f"x must vary in more than latent={latent} directions, got {len(x)} observations "
                "that leave no noise to estimate: give more observations or a smaller latent"
            )
        stretch = (eigenvalues[-latent:] - variance).clamp(min=0).sqrt()
        story = cls((features,), latent).to(x.device)
        with torch.no_grad():
            story.loc.copy_(loc)
            story.weight.copy_((eigenvectors[:, -latent:] * stretch).flip(1))
            story.log_scale.copy_(variance.log() / 2)
        story.set_guide_to_exact_posterior()
        return story

    def start(self, x: Tensor) -> None:
        """Begin at the mean of the data, with all their spread as noise.

        Args:
            x: Observations, shape ``(N, D)``.
        """
        x = observations(x, self.shape)
        with torch.no_grad():
            self.loc.copy_(x.mean(0))
            self.guide_loc.copy_(self.loc)
            self.log_scale.copy_((x - self.loc).square().mean().clamp(min=1e-12).log() / 2)

    def model(self, x: Tensor) -> None:
        """The story.

        Args:
            x: Observations, shape ``(N, D)``.

        Raises:
            StoryError: If the observations have another shape.
        """
        x = observations(x, self.shape)
        with pyro.plate("observations", len(x)):
            z = pyro.sample("z", self.prior())
            loc = z @ self.weight.T + self.loc
            pyro.sample("x", dist.Normal(loc, self.log_scale.exp()).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        """The story read backwards.

        Args:
            x: Observations, shape ``(N, D)``.

        Raises:
            StoryError: If the observations have another shape.
        """
        x = observations(x, self.shape)
        loc = (x - self.guide_loc) @ self.guide_weight.T
        scale_tril = transform_to(constraints.lower_cholesky)(self.guide_raw_tril)
        with pyro.plate("observations", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=scale_tril))

    def log_evidence(self, x: Tensor) -> Tensor:
        r"""The exact log evidence, of :math:`x \sim \mathcal{N}(\mu, W W^\top + \sigma^2 I)`.

        Args:
            x: Observations, shape ``(N, D)``.

        Returns:
            Nats, shape ``(N,)``.

        Raises:
            StoryError: If the observations have another shape.
        """
        x = observations(x, self.shape)
        # The distance is a small difference of large numbers where the noise is small.
        loc, weight, log_scale = self.loc.double(), self.weight.double(), self.log_scale.double()
        variance = (2 * log_scale).exp().expand(self.shape)
        law = dist.LowRankMultivariateNormal(loc, weight, variance)
        return law.log_prob(x.double()).to(x.dtype)

    def exact_posterior(self, x: Tensor) -> dist.MultivariateNormal:
        r"""The exact posterior of the code, with :math:`M = W^\top W + \sigma^2 I`.

        .. math:: p(z \mid x) = \mathcal{N}(z \mid M^{-1} W^\top (x - \mu), \sigma^2 M^{-1})

        Args:
            x: Observations, shape ``(N, D)``.

        Returns:
            A distribution of batch shape ``(N,)`` and event shape ``(latent,)``.

        Raises:
            StoryError: If the observations have another shape.
        """
        x = observations(x, self.shape)
        weight, scale_tril = self._exact_guide()
        return dist.MultivariateNormal((x - self.loc) @ weight.T, scale_tril=scale_tril)

    def set_guide_to_exact_posterior(self) -> None:
        """Set the guide's parameters so that it gives the exact posterior of the present model."""
        with torch.no_grad():
            weight, scale_tril = self._exact_guide()
            self.guide_weight.copy_(weight)
            self.guide_loc.copy_(self.loc)
            self.guide_raw_tril.copy_(transform_to(constraints.lower_cholesky).inv(scale_tril))

    def _exact_guide(self) -> tuple[Tensor, Tensor]:
        weight, variance = self.weight.double(), (2 * self.log_scale.double()).exp()
        inner = weight.T @ weight + variance * torch.eye(self.latent).to(weight)
        guide_weight = torch.linalg.solve(inner, weight.T)
        scale_tril = torch.linalg.cholesky(variance * torch.linalg.inv(inner))
        return guide_weight.to(self.weight.dtype), scale_tril.to(self.weight.dtype)
