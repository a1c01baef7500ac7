"""Small real data that come with scikit-learn: nothing to download."""

from typing import Any

import torch

from ppl_gen.data.dataset import Dataset, Part, divided, seeded
from ppl_gen.data.levels import Levels
from ppl_gen.data.support import Support

LINES = {
    "digits": "1,797 handwritten digits of 8 x 8 pixels, in 10 classes",
    "iris": "150 flowers, 4 lengths in cm, in 3 species",
    "wine": "178 wines, 13 chemical measurements, from 3 growers",
}
SIXTEENTHS = Levels(1 / 16)


def load_embedded(name: str, seed: int) -> Dataset:
    """Load one of scikit-learn's own data sets, divided 70/15/15 at random.

    The digits are scaled from their 17 grey levels to ``[0, 1]`` and have shape ``(1, 8, 8)``.
    Iris and wine stay in the units in which they were measured.

    Args:
        name: A key of ``LINES``.
        seed: The seed of the division.
    """
    from sklearn import datasets

    bunch: Any = getattr(datasets, f"load_{name}")()
    x = torch.from_numpy(bunch.data).float()
    support, levels = Support.REAL, None
    if name == "digits":
        x, support, levels = x.reshape(-1, 1, 8, 8).byte(), Support.UNIT_INTERVAL, SIXTEENTHS
    whole = Part((x, torch.from_numpy(bunch.target).long()), levels=levels)
    label_names = tuple(str(label) for label in bunch.target_names)
    columns = None if x.ndim > 2 else tuple(str(column) for column in bunch.feature_names)
    return divided(
        name, support, whole, seeded(seed), label_names=label_names, column_names=columns
    )
