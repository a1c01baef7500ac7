"""Fitting a story: from a model, a guide and data to a run."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

from pyro.infer import ELBO

from ppl_gen.data import Dataset
from ppl_gen.errors import FitError
from ppl_gen.inference import checkpoint, disk, files, logs
from ppl_gen.inference.em import ExpectationMaximisation, is_open_ended
from ppl_gen.inference.history import Epoch
from ppl_gen.inference.logs import Logger, Logs
from ppl_gen.inference.pair import as_pair
from ppl_gen.inference.processes import follows, joined
from ppl_gen.inference.progress import reporter
from ppl_gen.inference.run import Run
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.settings import Settings
from ppl_gen.inference.svi import GradientAscent

# Names that other libraries have for settings.
ELSEWHERE = {
    **dict.fromkeys(("steps", "num_steps", "iterations", "max_epochs", "n_epochs"), "epochs"),
    **dict.fromkeys(("lr", "step_size"), "learning_rate"),
    **dict.fromkeys(("optim", "optimiser"), "optimizer"),
    **dict.fromkeys(("num_particles", "n_samples"), "particles"),
    **dict.fromkeys(("beta", "kl_factor"), "kl_weight"),
}


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
    resume: str | Path | None = None,
    checkpoint_seconds: float = 60.0,
    checkpoint_epochs: int | None = None,
    devices: int = 1,
    num_nodes: int = 1,
    callback: Callable[[Epoch], object] | None = None,
    loggers: Logger | str | Iterable[Logger | str] = (),
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
            the best ELBO on them are kept; the last of EM, and of a story without a latent for
            each datum, unless ``patience`` is set.
        kwargs: Further arguments of both programs, the same at every step.
        elbo: A bound of Pyro's to climb in place of the one chosen from the traced sites.
        warm_start: Go on from the weights the story has, instead of drawing new ones.
        out: A directory to save the run to; the last good state goes there if the fit must stop.
            Meanwhile checkpoints are kept there, and after Ctrl-C or SIGTERM one of that moment.
        overwrite: Whether a run that is there already may be replaced.
        resume: The ``out`` of a fit that was interrupted, to go on with, given the same story and
            data. Its settings are those it was begun with.
        checkpoint_seconds: How often to keep a checkpoint, in seconds; less often where writing one
            takes more than 2 % of that.
        checkpoint_epochs: How often, in epochs too.
        devices: Processes on each machine that fit the story together, each with a share of every
            batch; ``out`` is written by one. They are started by Lightning Fabric, which runs the
            present script again for each, or joined where ``torchrun`` has started them: what
            follows in a script is then done by every one.
        num_nodes: Machines.
        callback: A function that is called after every epoch with its record, the last of what
            will be ``run.history``; the fit ends there if it returns True.
        loggers: What is told of settings and epochs: "tensorboard", into ``logs`` in ``out``;
            "mlflow", into its own store; or objects with the methods of Lightning Fabric's
            ``Logger``. One that fails costs its log and not the fit.
        progress: Whether to show how far it is.
        **settings: The fields of :class:`Settings`: ``method``, ``epochs``, ``seed``,
            ``batch_size``, ``restarts``, ``tolerance``, ``learning_rate``, ``optimizer``,
            ``schedule``, ``clip``, ``particles``, ``kl_weight``, ``kl_warmup``, ``free_bits``,
            ``patience``, ``stop``, ``device``, ``compile``, ``precision``, ``ema``.

    A mixture is climbed by EM, and its posterior found from there::

        top = pg.fit(GMM((2,), 5, posterior="normal"), x, method="em")
        run = pg.fit(top.story, x, warm_start=True)

    On a CPU a fit that was interrupted and resumed gives the same bits as one that was not, but
    for the programs' own state that is neither parameter nor buffer::

        pg.fit(story, x, out="runs/a")  # and the power fails
        run = pg.fit(story, x, resume="runs/a")

    Before the first step the pair is looked over, as by :func:`ppl_gen.doctor`; a warning says what
    fails.

    Raises:
        StoryError: If model, guide and data do not fit each other, or the story has no EM.
        DataError: If the data cannot be used.
        FitError: If the loss becomes NaN or infinite, or a likelihood that EM climbs falls; its
            ``run`` holds the last good state.
        RunError: If the run cannot be written, another process is writing it, or there is nothing
            to resume.
        KeyboardInterrupt: After Ctrl-C, once the fit is saved to ``out``.
        ValueError: If a setting is out of its range.

    Reference:
        Kingma and Welling (2014), https://arxiv.org/abs/1312.6114; Ranganath et al. (2014),
        https://arxiv.org/abs/1401.0118, where a site cannot be reparametrised.
    """
    saved, saved_at = None, Path(resume or ".")
    if resume is not None:
        saved, out = _to_resume(Path(resume), out, settings), resume
        settings = saved.record["settings"]
    with seeded(0):  # an optimiser that is made for the first time imports what draws numbers
        chosen = read_settings(settings)
    if elbo is not None and chosen.method == "em":
        raise ValueError(
            f"elbo must be left out with method='em', which climbs the likelihood itself, got "
            f"{type(elbo).__name__}"
        )
    target = None if out is None else Path(out)
    if target is not None and saved is None and not follows():
        disk.check_target(target, overwrite)
    device = chosen.torch_device()
    processes = joined(devices, num_nodes, device)
    if not processes.first:  # one writes and tells
        target, progress = None, False
    if isinstance(loggers, str) or not isinstance(loggers, Iterable):
        loggers = (loggers,)
    with ExitStack() as stack:
        stack.enter_context(seeded(chosen.seed))
        stack.enter_context(chosen.with_precision())
        if target is not None:
            stack.enter_context(files.alone(target))
            if saved is None:
                checkpoint.forget(target)
                shutil.rmtree(target / logs.FOLDER, ignore_errors=True)
        if saved is None:
            pair = as_pair(story).fresh(warm_start)
        else:
            open_ended = story is not None and is_open_ended(as_pair(story).story)
            pair = disk.read_story(saved_at, saved.record["story"], None if open_ended else story)
            kwargs = {**saved.record["kwargs"], **(kwargs or {})}
        pair.to(device)
        if isinstance(data, Dataset) and validation is None:
            validation = data.valid
        stack.enter_context(pair.active())
        given = (pair, data, validation, dict(kwargs or {}), chosen, warm_start)
        if chosen.method == "em":
            training = ExpectationMaximisation(*given, processes)
        else:
            training = GradientAscent(*given, processes, elbo=elbo)
        if saved is not None:
            training.resume(saved)
        training.callback = callback
        if processes.first:
            training.logs = Logs(loggers, target, training.steps)
        training.interrupts = interrupts = checkpoint.Interrupts()
        if target is not None:
            training.save = checkpoint.Saver(
                target, checkpoint_seconds, checkpoint_epochs, interrupts
            )
        elif not processes.first:
            training.save = checkpoint.Follower(interrupts)
        if out is not None:
            stack.enter_context(interrupts.heard())
        keep: tuple[str, ...] = (logs.FOLDER, checkpoint.FOLDER)
        try:
            with (
                training.logs.of(training.facts()),
                training.blaming_data(),
                reporter(training.epochs, progress) as report,
            ):
                training.run(report)
            keep = (logs.FOLDER,)
        except FitError as error:
            error.run = training.result()
            raise
        finally:
            run = training.result()
            if target is not None and len(run.history):
                disk.put(run, target, keep)
    if interrupts.asked is not None:  # in the last step, after which nothing is left to save
        interrupts.end(f"interrupted; the fit is whole, in {str(out)!r}")
    return run


def _to_resume(path: Path, out: Any, settings: Mapping[str, Any]) -> checkpoint.Checkpoint:
    """The last good checkpoint of a fit.

    Raises:
        ValueError: If what it has to be resumed with is given once more.
        RunError: If there is none.
    """
    if out is not None and Path(out) != path:
        raise ValueError(f"out must be left out with resume, which goes on in its place, got {out}")
    if settings:
        raise ValueError(
            f"{next(iter(settings))} must be left out with resume, which goes on as the fit was "
            "begun: to train a fitted story in another way, fit(run.story, x, warm_start=True, ...)"
        )
    return checkpoint.read(path)


def read_settings(settings: Mapping[str, Any]) -> Settings:
    """Check names and values of settings.

    Raises:
        TypeError: If a name is unknown; it gives the nearest.
        ValueError: If a value is out of its range.
    """
    known = [f.name for f in fields(Settings)]
    for name in settings:
        if name not in known:
            near = [ELSEWHERE[name]] if name in ELSEWHERE else []
            near = near or difflib.get_close_matches(name, known, n=1)
            hint = f": did you mean {near[0]}?" if near else f": there are {', '.join(known)}"
            raise TypeError(f"fit has no setting {name!r}{hint}")
    return Settings(**settings)
