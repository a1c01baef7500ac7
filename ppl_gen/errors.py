"""What can go wrong, each as one sentence that names the thing and the remedy.

Everything a user can cause ends in one of these classes. Each is also the built-in error that a
Python programmer would expect, so that ``except ValueError`` works as usual. The command line
prints the sentence and exits with status 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class PplGenError(Exception):
    """Base class of the errors that ppl-gen raises on purpose."""


class DataError(PplGenError, ValueError):
    """The data are missing, unreadable, or not what the story expects."""


class StoryError(PplGenError, ValueError):
    """A model and its guide do not fit each other, or do not fit the data."""


class NoDensityError(StoryError, NotImplementedError):
    """A law that can only be drawn from was asked for a density."""


class FitError(PplGenError, ArithmeticError):
    """A fit had to stop, for instance because its loss became NaN.

    Attributes:
        run: The run with the last good state, if there is one.
    """

    run: Any = None


class RunError(PplGenError, ValueError):
    """A run on disk is missing, damaged, or belongs to another story."""


def refuse_if(wrong: Tensor, error: Callable[[], Exception | None]) -> None:
    """Raise an error if something is wrong with the values of tensors.

    A story that checks its data in this way, rather than by an ``if``, can be captured as a graph:
    there the question is put together with those on the validity of laws and data, in the first
    pass over the data.

    Args:
        wrong: Truth values, of any shape: whether there may be something to refuse.
        error: Looks closer, and gives the error to raise, or None.
    """
    if wrong.any() and (found := error()) is not None:
        raise found
