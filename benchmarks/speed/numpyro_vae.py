"""The same VAE in NumPyro, a whole epoch in one jitted call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.speed.contender import Contender


@dataclass
class NumPyroVAE(Contender):
    """``svi.update`` inside ``jax.lax.scan``, rows taken by a permutation drawn inside.

    Args:
        batch_size: Rows a step.
        rows: How many there are; a multiple of the batch size.
        pixels: Elements of a row.
        hidden: Units of the hidden layer on either side.
        latent: Size of the code.
    """

    batch_size: int
    rows: int
    pixels: int = 784
    hidden: int = 400
    latent: int = 20
    needs = ("numpyro", "jax")

    def prepare(self) -> None:
        import jax
        import jax.numpy as jnp
        import numpyro
        from numpyro.infer import SVI, TraceMeanField_ELBO

        lit = np.random.default_rng(0).random((self.rows, self.pixels), dtype=np.float32) < 0.13
        self.x = jnp.asarray(lit.astype(np.float32))
        model, guide = self._programs()
        svi = SVI(model, guide, numpyro.optim.Adam(1e-3), TraceMeanField_ELBO())
        self.key, first = jax.random.split(jax.random.key(0))
        self.state: Any = svi.init(first, self.x[: self.batch_size])

        def epoch(state: Any, key: Any, x: Any) -> Any:
            order = jax.random.permutation(key, self.rows).reshape(-1, self.batch_size)
            return jax.lax.scan(lambda s, index: svi.update(s, x[index]), state, order)

        self.epoch = jax.jit(epoch, donate_argnums=0)
        self.run(2 * self.rows // self.batch_size)

    def run(self, steps: int) -> None:
        import jax

        count = self.rows // self.batch_size
        if steps % count:
            raise ValueError(f"steps must be a multiple of the {count} of an epoch, got {steps}")
        for _ in range(steps // count):
            self.key, key = jax.random.split(self.key)
            self.state, losses = self.epoch(self.state, key, self.x)
            if not np.isfinite(np.asarray(losses)).all():
                raise ArithmeticError("the loss must stay finite")
        jax.block_until_ready(self.state)

    def _programs(self) -> tuple[Any, Any]:
        import jax.numpy as jnp
        import numpyro
        import numpyro.distributions as dist

        noise = np.random.default_rng(1)

        def dense(name: str, inputs: int, outputs: int) -> Any:
            bound = inputs**-0.5
            weight = noise.uniform(-bound, bound, (inputs, outputs)).astype(np.float32)
            w = numpyro.param(f"{name}.weight", jnp.asarray(weight))
            b = numpyro.param(f"{name}.bias", jnp.zeros(outputs))
            return lambda h: h @ w + b

        def model(x: Any) -> None:
            down = dense("down", self.latent, self.hidden)
            out = dense("out", self.hidden, self.pixels)
            with numpyro.plate("rows", x.shape[0]):
                prior = dist.Normal(jnp.zeros(self.latent), 1.0).to_event(1)
                z = numpyro.sample("z", prior)
                law = dist.Bernoulli(logits=out(jnp.tanh(down(z)))).to_event(1)
                numpyro.sample("x", law, obs=x)

        def guide(x: Any) -> None:
            up = dense("up", self.pixels, self.hidden)
            code = dense("code", self.hidden, 2 * self.latent)
            loc, log_scale = jnp.split(code(jnp.tanh(up(x))), 2, -1)
            with numpyro.plate("rows", x.shape[0]):
                numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))

        return model, guide
