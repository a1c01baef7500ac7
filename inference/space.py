"""What a search tries: lists of values and ranges of numbers, by the names of options."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ppl_gen.errors import DataError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; whole, in steps, or spread as logarithms."""

    low: float
    high: float
    log: bool = False
    step: float | None = None


Space = dict[str, "Range | tuple[Any, ...]"]


def read_space(told: Mapping[str, Any], before: str = "") -> Space:
    """What a table says is to be tried: a list of values, or a range, of each name.

    Args:
        told: As read from TOML: ``latent = [2, 4, 8]``, ``learning_rate = {low = 1e-4, high = 1e-2,
            log = true}``; tables within tables are names with dots.
        before: What names begin with.

    Raises:
        DataError: If something else stands there.
    """
    found: Space = {}
    for name, value in told.items():
        whole = f"{before}{name}"
        if isinstance(value, Mapping) and not {"low", "high"} & value.keys():
            found |= read_space(value, f"{whole}.")
        elif isinstance(value, Mapping):
            found[whole] = _range(whole, value)
        elif isinstance(value, list) and value and all(map(_is_plain, value)):
            if len(set(map(repr, value))) < len(value):
                raise DataError(f"{whole} must have values that differ, got {value!r}")
            found[whole] = tuple(_in_words(v) for v in value)
        else:
            raise DataError(
                f"{whole} must be a list of values, as in [2, 4, 8], or a range, as in "
                f"{{low = 1e-4, high = 1e-2, log = true}}, got {value!r}"
            )
    if not found and not before:
        raise DataError("the space must name at least one option, got none")
    return found


def plain_space(space: Space) -> dict[str, Any]:
    """What :func:`read_space` reads again."""
    return {
        name: {k: v for k, v in vars(tried).items() if v is not None}
        if isinstance(tried, Range)
        else list(tried)
        for name, tried in space.items()
    }


def _range(name: str, told: Mapping[str, Any]) -> Range:
    extra = told.keys() - {"low", "high", "log", "step"}
    low, high, log, step = (told.get(k) for k in ("low", "high", "log", "step"))
    numbers = [v for v in (low, high, step) if v is not None]
    plain = all(isinstance(v, int | float) and not isinstance(v, bool) for v in numbers)
    whole = isinstance(low, int) and isinstance(high, int)
    wrong = (
        f"has {', '.join(sorted(extra))}"
        if extra
        else "needs low and high, numbers"
        if low is None or high is None or not plain or not all(map(math.isfinite, numbers))
        else "must have low below high"
        if not low < high
        else "must be true or false in log"
        if not isinstance(log, bool | None)
        else "must begin above 0, with log"
        if log and low <= 0
        else "must leave out step, with log"
        if log and step is not None
        else "must have a positive step"
        if step is not None and step <= 0
        else "must have a whole step, of whole numbers"
        if whole and step is not None and not isinstance(step, int)
        else ""
    )
    if wrong:
        raise DataError(f"the range of {name} {wrong}: got {dict(told)!r}")
    return Range(low, high, bool(log), step)  # type: ignore[arg-type]


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(v, int | float | str) for v in value)
    return isinstance(value, bool | int | float | str) and value != ""


def _in_words(value: Any) -> Any:
    """A value, of a list its parts as they are typed."""
    return " ".join(map(str, value)) if isinstance(value, list) else value


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """A space as Optuna has it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    made: dict[str, BaseDistribution] = {}
    for name, tried in space.items():
        if isinstance(tried, tuple):
            made[name] = CategoricalDistribution(tried)
        elif isinstance(tried.low, int) and isinstance(tried.high, int):
            step = 1 if tried.step is None else int(tried.step)
            # Optuna lowers an end that no step meets, and warns.
            high = tried.low + (tried.high - tried.low) // step * step
            made[name] = IntDistribution(tried.low, high, log=tried.log, step=step)
        else:
            high = tried.high
            if tried.step is not None:
                high = tried.low + math.floor((high - tried.low) / tried.step + 1e-9) * tried.step
            made[name] = FloatDistribution(tried.low, high, log=tried.log, step=tried.step)
    return made
