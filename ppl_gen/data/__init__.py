"""Data: where they come from, what values they take, and how they are divided.

``load`` reads a data set by its name or a file by its path. ``as_part`` takes what is already in
memory, and ``masked`` puts beside it which elements are seen. Importing this package loads nothing
heavier than torch: scikit-learn, torchvision, pandas and Pillow are imported by the functions that
need them.
"""

from ppl_gen.data.catalogue import CATALOGUE, load, names
from ppl_gen.data.convert import as_part, stream
from ppl_gen.data.dataset import Dataset, Part, concat
from ppl_gen.data.images import image
from ppl_gen.data.masks import MASKS, mask, masked
from ppl_gen.data.support import Support
from ppl_gen.data.synthetic import moon_phase

__all__ = [
    "CATALOGUE",
    "MASKS",
    "Dataset",
    "Part",
    "Support",
    "as_part",
    "concat",
    "image",
    "load",
    "mask",
    "masked",
    "moon_phase",
    "names",
    "stream",
]
