"""A search for the settings under which rows that are held out have the highest ELBO.

In a folder: ``sweep.json``, what is searched and how; ``study.db``, Optuna's trials; ``trials``,
the fits on their way, each with its checkpoints; and ``best``, the best run so far. Several
processes may work on one folder, and one that is killed leaves its fit to the next.

References:
    Bergstra et al. (2011), Algorithms for hyper-parameter optimization, NeurIPS; Akiba et al.
    (2019), Optuna, https://arxiv.org/abs/1907.10902
"""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from ppl_gen.data import Dataset
from ppl_gen.errors import DataError, FitError, PplGenError, RunError, StoryError
from ppl_gen.inference import checkpoint
from ppl_gen.inference.files import write_file
from ppl_gen.inference.fit import fit
from ppl_gen.inference.history import Epoch
from ppl_gen.inference.passes import evidence_of
from ppl_gen.inference.run import Run
from ppl_gen.inference.seeds import seeded
from ppl_gen.inference.settings import Settings
from ppl_gen.inference.space import Space, distributions

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

RECORD, STUDY, TRIALS, BEST = "sweep.json", "study.db", "trials", "best"
FORMAT = 1
NAME = "sweep"
# Draws of the guide by which the weights that a fit kept are judged.
DRAWS = 32
# A fit is given up no earlier than after this share of its way, in percent, and so many others.
WARM, OTHERS = 20, 5
# Seconds to wait for another process to take or to hand in a trial.
PATIENCE = 60.0


@dataclass(frozen=True)
class Tried:
    """One trial.

    Attributes:
        number: From 0, in the order in which they were begun.
        values: What was tried, by name.
        state: ``complete``; ``pruned``, if it was given up; ``failed``; ``running``.
        elbo: Validation ELBO of the weights that were kept, in nats per datum; NaN unless complete.
        told: Of a validation ELBO on the way, how far the fit was, in percent.
        seconds: How long it took; NaN if it is not over.
        error: Why it failed.
    """

    number: int
    values: dict[str, Any]
    state: str
    elbo: float
    told: dict[int, float] = field(default_factory=dict)
    seconds: float = math.nan
    error: str = ""

    @property
    def done(self) -> bool:
        """Whether it was judged."""
        return self.state == "complete" and math.isfinite(self.elbo)


def begin(folder: Path, plan: Mapping[str, Any], overwrite: bool = False) -> None:
    """Make the folder of a new sweep.

    Args:
        folder: Which.
        plan: What is searched and how, plain values.
        overwrite: Whether a sweep that is there already may be replaced.

    Raises:
        RunError: If it cannot be written, or holds something already.
    """
    there = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if there and not (folder / RECORD).exists():
        raise RunError(f"{str(folder)!r} holds something else than a sweep: choose another --out")
    if there and not overwrite:
        raise RunError(
            f"{str(folder)!r} holds a sweep already: go on with it, ppl-gen sweep --resume "
            f"{folder}, or replace it, --overwrite"
        )
    try:
        if there:
            with _alone(folder):
                for name in (TRIALS, BEST):
                    shutil.rmtree(folder / name, ignore_errors=True)
                (folder / STUDY).unlink(missing_ok=True)
        (folder / TRIALS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{str(folder)!r} cannot be written: {error.strerror}") from error
    write_file(folder / RECORD, (json.dumps({"format": FORMAT, **plan}, indent=2) + "\n").encode())


def read_record(folder: Path) -> dict[str, Any]:
    """What :func:`begin` was told.

    Raises:
        RunError: If it cannot be read.
    """
    try:
        record = json.loads((folder / RECORD).read_text())
        if record["format"] != FORMAT:
            raise RunError(
                f"the sweep in {str(folder)!r} has format {record['format']!r}, this version of "
                f"ppl-gen reads {FORMAT}"
            )
    except FileNotFoundError:
        raise RunError(f"there is no sweep at {str(folder)!r}: check the path") from None
    except OSError as error:
        raise RunError(f"{str(folder / RECORD)!r} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{str(folder / RECORD)!r} is no sweep: {error!r}") from error
    return record


def search(
    folder: Path,
    space: Space,
    make: Callable[[dict[str, Any]], tuple[Any, Settings, Dataset]],
    *,
    trials: int,
    seed: int = 0,
    checkpoint_seconds: float = 60.0,
    tell: Callable[[str], None] = lambda sentence: None,
) -> list[Tried]:
    """Try settings, each chosen by what came of those before, until there are enough trials.

    A fit that is behind the median of the others at the same share of its way is given up. The best
    run so far is kept in ``best``; of the others their figures.

    Args:
        folder: Where :func:`begin` was.
        space: What is tried.
        make: What a trial fits: story, settings and data of chosen values.
        trials: How many there are to be in all, those of other processes and of before included.
        seed: Of the choices.
        checkpoint_seconds: How often to keep a checkpoint of a fit.
        tell: Is told of each trial in a sentence.

    Returns:
        All trials, in the order in which they were begun.

    Raises:
        FitError: If Optuna is not installed.
        PplGenError: What the first trial raised, if all have failed.
        RunError: If the folder cannot be used.
        KeyboardInterrupt: If it is interrupted; the fit on its way is gone on with by the next.
    """
    first: PplGenError | None = None
    with _study(folder) as study:
        while (taken := _next(folder, study, space, trials, seed)) is not None:
            trial, lock = taken
            try:
                _attempt(folder, study, trial, make, checkpoint_seconds, tell)
            except (FitError, StoryError, DataError) as error:
                first = first or error
                with _alone(folder):
                    trial.set_user_attr("error", " ".join(str(error).split()))
                    study.tell(trial, state=_states().FAIL)
                tell(f"trial {trial.number} has failed: {error}")
            finally:
                lock.release()
            _forget(folder, trial.number)
        found = list(map(_tried, study.get_trials(deepcopy=False)))
    if first is not None and all(t.state == "failed" for t in found):
        raise first
    return found


def trials_of(folder: Path) -> list[Tried]:
    """The trials of a sweep, in the order in which they were begun.

    Raises:
        RunError: If they cannot be read.
    """
    with _study(folder) as study:
        return list(map(_tried, study.get_trials(deepcopy=False)))


def best_of(tried: Sequence[Tried]) -> Tried | None:
    """The complete trial with the highest ELBO, if any is complete."""
    return max((t for t in tried if t.done), key=lambda t: t.elbo, default=None)


class _Judge:
    """Tells a trial how a fit is going on, and gives it up where others were better by then."""

    def __init__(self, trial: Trial, prunes: bool) -> None:
        self.trial, self.prunes = trial, prunes
        self.epochs, self.warmup, self.last = 0, 0, 0
        self.pruned = False

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        self.epochs = int(params["settings.epochs"])
        self.warmup = int(params.get("settings.kl_warmup", 0))

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Fabric's loggers are told figures; this one asks for the epoch itself."""

    def finalize(self, status: str) -> None:
        """Whether it was given up is known already."""

    def __call__(self, epoch: Epoch) -> bool:
        done = 100 * epoch.epoch // self.epochs
        if not self.prunes or done <= self.last or not math.isfinite(epoch.valid_elbo):
            return False
        if epoch.epoch <= self.warmup:
            return False
        self.last = done
        self.trial.report(epoch.valid_elbo, done)
        self.pruned = done < 100 and self.trial.should_prune()
        return self.pruned


def _attempt(
    folder: Path,
    study: Study,
    trial: Trial,
    make: Callable[[dict[str, Any]], tuple[Any, Settings, Dataset]],
    checkpoint_seconds: float,
    tell: Callable[[str], None],
) -> None:
    """Fit what a trial tries, and hand in what came of it."""
    out = _place(folder, trial.number)
    story, settings, data = make(dict(trial.params))
    prunes = settings.method == "svi" and settings.stop == "epochs"
    judge = _Judge(trial, prunes)
    ways: dict[str, Any] = {"out": out, "overwrite": True, **asdict(settings)}
    if checkpoint.there(out):
        ways = {"resume": out}
        judge.last = max(_tried(study.trials[trial.number]).told, default=0)
    run = fit(
        story,
        data,
        callback=judge,
        loggers=judge,
        checkpoint_seconds=checkpoint_seconds,
        progress=False,
        **ways,
    )
    seconds = run.history[-1].seconds
    trial.set_user_attr("seconds", seconds)
    if judge.pruned:
        with _alone(folder):
            study.tell(trial, state=_states().PRUNED)
        tell(f"trial {trial.number} is given up after {seconds:.1f} s, {told(trial.params)}")
        return
    value = held_out(run, data)
    if not math.isfinite(value):
        raise FitError(f"its validation ELBO is {value}, by which nothing can be judged")
    with _alone(folder):
        before = best_of(list(map(_tried, study.get_trials(deepcopy=False))))
        best = before is None or value > before.elbo
        if best:
            run.save(folder / BEST, overwrite=True)
        study.tell(trial, value)
    tell(
        f"trial {trial.number}: validation ELBO {value:.3f} in {seconds:.1f} s, "
        f"{told(trial.params)}{', the best so far' if best else ''}"
    )


def held_out(run: Run, data: Dataset) -> float:
    """Validation ELBO of the weights that a fit kept, in nats per datum.

    Where each datum has latents of its own it is drawn anew, of 32 draws: the best of many epochs
    would be high by chance, and the higher the more epochs there are.
    """
    if run.structure.has_codes and not run.structure.unscored:
        return evidence_of(run, data.valid, DRAWS, seed=0, khat=False).elbo.mean().item()
    elbo = run.history["valid_elbo"]
    return max(elbo) if run.settings.chooses_by_validation(run.structure.has_codes) else elbo[-1]


Taken = tuple["Trial", FileLock]


def _next(folder: Path, study: Study, space: Space, trials: int, seed: int) -> Taken | None:
    """A trial that a process has left, or a new one; and what keeps others from it."""
    from optuna import Trial
    from optuna.samplers import TPESampler

    with _alone(folder):
        known = study.get_trials(deepcopy=False)
        for left in (t for t in known if t.state == _states().RUNNING):
            lock = _held(folder, left.number)
            if lock is not None:
                return Trial(study, left._trial_id), lock
        if len(known) >= trials:
            return None
        # By what is known alone, whichever process asks.
        study.sampler = TPESampler(seed=(seed + len(known)) % 2**32)
        with seeded(0):
            trial = study.ask(distributions(space))
        lock = _held(folder, trial.number)
        if lock is None:
            raise RunError(f"trial {trial.number} in {str(folder)!r} is held by another process")
        return trial, lock


def _held(folder: Path, number: int) -> FileLock | None:
    """The lock of a trial, if no living process has it."""
    lock = FileLock(folder / TRIALS / f"{number:04d}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def _place(folder: Path, number: int) -> Path:
    return folder / TRIALS / f"{number:04d}"


def _forget(folder: Path, number: int) -> None:
    """Remove what a trial that is over has left on the way."""
    shutil.rmtree(_place(folder, number), ignore_errors=True)
    with suppress(OSError):
        (folder / TRIALS / f"{number:04d}.lock").unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Be the only process that takes or hands in a trial.

    Raises:
        RunError: If another is at it for a minute.
    """
    lock = FileLock(folder / f".{NAME}.lock")
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        raise RunError(f"another process holds {str(folder)!r}: wait until it has ended") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _study(folder: Path) -> Iterator[Study]:
    """The study in a folder, whose mistakes become ours.

    Raises:
        FitError: If Optuna is not installed.
        RunError: If its file cannot be used.
    """
    try:
        with seeded(0):
            import optuna
            from optuna.exceptions import OptunaError
            from sqlalchemy.exc import SQLAlchemyError
    except ImportError as error:
        raise FitError("a sweep needs Optuna: pip install 'ppl-gen[sweep]'") from error
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    file = folder / STUDY
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="optuna")
            warnings.filterwarnings("ignore", "The reported value is ignored")
            with _alone(folder):
                storage = optuna.storages.RDBStorage(
                    f"sqlite:///{file}", engine_kwargs={"connect_args": {"timeout": PATIENCE}}
                )
                study = optuna.create_study(
                    storage=storage, study_name=NAME, direction="maximize", load_if_exists=True
                )
            study.pruner = optuna.pruners.MedianPruner(OTHERS, WARM)
            try:
                yield study
            finally:
                storage.remove_session()
                storage.engine.dispose()
    except (SQLAlchemyError, OptunaError, OSError) as error:
        said = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise RunError(f"the trials in {str(file)!r} cannot be used: {said}") from error
    finally:
        optuna.logging.set_verbosity(verbosity)


def _states() -> Any:
    from optuna.trial import TrialState

    return TrialState


def _tried(trial: FrozenTrial) -> Tried:
    names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    state = names.get(trial.state.name, "running")
    return Tried(
        trial.number,
        dict(trial.params),
        state,
        float(trial.value) if state == "complete" and trial.value is not None else math.nan,
        {int(step): float(value) for step, value in sorted(trial.intermediate_values.items())},
        float(trial.user_attrs.get("seconds", math.nan)),
        str(trial.user_attrs.get("error", "")),
    )


def told(values: Mapping[str, Any]) -> str:
    """Values as they are typed."""
    return ", ".join(f"{name}={_short(value)}" for name, value in values.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
