"""Fitting a story: from a model, a guide and data to a run."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pyro.infer import ELBO

from ppl_gen.data import Dataset
from ppl_gen.errors import FitError
from ppl_gen.inference import disk
from ppl_gen.inference.em import ExpectationMaximisation
from ppl_gen.inference.pair import as_pair
from ppl_gen.inference.progress import reporter
from ppl_gen.inference.run import Run
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.settings import Settings
from ppl_gen.inference.svi import GradientAscent


def fit(
    story: Any,
    data: Any = None,
    *,
    validation: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    elbo: ELBO | None = None,
    warm_start: bool = False,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
    **settings: Any,
) -> Run:
    """Fit a story to data, by stochastic variational inference or by EM.

    What is given stays as it was: a story of ppl-gen is built anew with first weights drawn from
    the seed, modules of one's own are copied, functions get a parameter store of their own. The
    fitted story is ``run.story``. On a CPU, two calls with the same arguments give the same bits.

    Args:
        story: An object with ``.model`` and ``.guide``; or a pair of callables or modules; or a
            model with one of Pyro's autoguides, ``(model, "AutoNormal")``.
        data: A data set, one of its parts, a tensor, an array, a table, or a tuple of columns with
            as many rows each. None for programs that hold their data themselves.
        validation: Rows to watch, of the same form; a data set brings its own. The weights with
            the best ELBO on them are kept; of EM the last.
        kwargs: Further arguments of both programs, the same at every step.
        elbo: A bound of Pyro's to climb in place of the one chosen from the traced sites.
        warm_start: Go on from the weights the story has, instead of drawing new ones.
        out: A directory to save the run to; the last good state goes there if the fit must stop.
        overwrite: Whether a run that is there already may be replaced.
        progress: Whether to show how far it is.
        **settings: The fields of :class:`Settings`: ``method``, ``epochs``, ``seed``,
            ``batch_size``, ``restarts``, ``tolerance``, ``learning_rate``, ``optimizer``,
            ``schedule``, ``clip``, ``particles``, ``kl_weight``, ``kl_warmup``, ``free_bits``,
            ``patience``, ``stop``, ``device``, ``compile``, ``precision``, ``ema``.

    A mixture is climbed by EM, and its posterior found from there::

        top = pg.fit(GMM((2,), 5, posterior="normal"), x, method="em")
        run = pg.fit(top.story, x, warm_start=True)

    Before the first step the pair is looked over, as by :func:`ppl_gen.doctor`; a warning says what
    fails.

    Raises:
        StoryError: If model, guide and data do not fit each other, or the story has no EM.
        DataError: If the data cannot be used.
        FitError: If the loss becomes NaN or infinite, or a likelihood that EM climbs falls; its
            ``run`` holds the last good state.
        ValueError: If a setting is out of its range.

    Reference:
        Kingma and Welling (2014), https://arxiv.org/abs/1312.6114; Ranganath et al. (2014),
        https://arxiv.org/abs/1401.0118, where a site cannot be reparametrised.
    """
    with seeded(0):  # an optimiser that is made for the first time imports what draws numbers
        chosen = read_settings(settings)
    if elbo is not None and chosen.method == "em":
        raise ValueError(
            f"elbo must be left out with method='em', which climbs the likelihood itself, got "
            f"{type(elbo).__name__}"
        )
    if out is not None:
        disk.check_target(Path(out), overwrite)
    device = chosen.torch_device()
    with seeded(chosen.seed), chosen.with_precision():
        pair = as_pair(story).fresh(warm_start)
        pair.to(device)
        if isinstance(data, Dataset) and validation is None:
            validation = data.valid
        with pair.active():
            given = (pair, data, validation, dict(kwargs or {}), chosen, warm_start)
            if chosen.method == "em":
                training = ExpectationMaximisation(*given)
            else:
                training = GradientAscent(*given, elbo=elbo)
            try:
                with reporter(training.epochs, progress) as report:
                    training.run(report)
            except FitError as error:
                error.run = training.result()
                raise
            finally:
                run = training.result()
                if out is not None and len(run.history):
                    disk.save(run, Path(out), overwrite)
    return run


def read_settings(settings: Mapping[str, Any]) -> Settings:
    """Check names and values of settings.

    Raises:
        TypeError: If a name is unknown; it gives the nearest.
        ValueError: If a value is out of its range.
    """
    known = [f.name for f in fields(Settings)]
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f": did you mean {near[0]}?" if near else f": there are {', '.join(known)}"
            raise TypeError(f"fit has no setting {name!r}{hint}")
    return Settings(**settings)
