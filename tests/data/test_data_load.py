"""Loading by name: what every data set keeps, and what the options may ask."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from ppl_gen import data as pgd
from ppl_gen.data import Support
from ppl_gen.data.embedded import LINES as EMBEDDED
from ppl_gen.data.synthetic import LINES as SYNTHETIC
from ppl_gen.data.vision import OPENERS
from ppl_gen.errors import DataError

LOCAL = (*EMBEDDED, *SYNTHETIC)


@pytest.mark.parametrize("name", LOCAL)
def test_what_is_loaded_is_what_it_says(name: str) -> None:
    data = pgd.load(name)
    assert data.name == name
    assert data.categories is None
    for part in data.parts:
        assert part.x.dtype is torch.float32
        assert part.x.shape == (len(part), *data.shape)
        assert part.y is not None
        assert part.y.shape == (len(part),)
        assert data.support.contains(part.x).all()
        assert not part.redraw
    if data.label_names is not None:
        assert data.train.y is not None
        assert len(data.label_names) == data.train.y.max() + 1


@pytest.mark.parametrize(
    ("name", "binarise"),
    [*((name, None) for name in LOCAL), ("digits", "fixed"), ("digits", "redraw")],
)
def test_loading_leaves_the_global_generators_alone(name: str, binarise: str | None) -> None:
    torch_state = torch.get_rng_state()
    numpy_state = np.random.get_state(legacy=True)  # noqa: NPY002
    pgd.load(name, binarise=binarise, seed=7)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert repr(np.random.get_state(legacy=True)) == repr(numpy_state)  # noqa: NPY002


@pytest.mark.parametrize(
    "options",
    [
        {"name_or_path": "digits", "binarise": "redraw", "seed": 3},
        {"name_or_path": "MOON_PHASES", "size": 60, "binarise": "fixed"},
        {"name_or_path": "iris", "support": "real"},
    ],
)
def test_the_source_gives_the_same_data_again(options: dict) -> None:
    data = pgd.load(**options)
    again = pgd.load(**json.loads(json.dumps(dict(data.source))))
    assert again.fingerprint == data.fingerprint
    assert again.source == data.source


def test_every_embedded_row_lands_in_exactly_one_part() -> None:
    from sklearn.datasets import load_iris

    x, y = load_iris(return_X_y=True)
    whole = np.column_stack([x, y]).astype(np.float32)
    data = pgd.load("iris")
    joined = pgd.concat(*data.parts)
    assert joined.y is not None
    assert [len(part) for part in data.parts] == [106, 22, 22]
    found = np.column_stack([joined.x.numpy(), joined.y.numpy()]).astype(np.float32)
    assert np.array_equal(found[np.lexsort(found.T)], whole[np.lexsort(whole.T)])
    assert data.label_names == ("setosa", "versicolor", "virginica")


def test_the_seed_decides_the_division() -> None:
    assert pgd.load("wine", seed=1).fingerprint != pgd.load("wine", seed=0).fingerprint


def test_digits_are_images_of_17_grey_levels() -> None:
    data = pgd.load("digits")
    assert data.shape == (1, 8, 8)
    assert data.support is Support.UNIT_INTERVAL
    levels = data.train.x.unique() * 16
    assert_close(levels, torch.arange(17.0))


def test_the_threshold_is_one_half() -> None:
    grey, binary = pgd.load("digits"), pgd.load("digits", binarise="threshold")
    assert binary.support is Support.BINARY
    assert torch.equal(binary.test.x, (grey.test.x > 0.5).float())


def test_fixed_draws_have_the_intensities_as_means() -> None:
    grey, fixed = pgd.load("digits"), pgd.load("digits", binarise="fixed")
    surplus = (fixed.train.x - grey.train.x).sum()
    error = (grey.train.x * (1 - grey.train.x)).sum().sqrt()
    assert Support.BINARY.contains(fixed.train.x).all()
    assert surplus.abs() < 5 * error


def test_redrawn_data_keep_probabilities_in_train_only() -> None:
    grey, redrawn = pgd.load("digits"), pgd.load("digits", binarise="redraw")
    fixed = pgd.load("digits", binarise="fixed")
    assert redrawn.support is Support.BINARY
    assert redrawn.train.redraw
    assert torch.equal(redrawn.train.x, grey.train.x)
    assert redrawn.valid.fingerprint == fixed.valid.fingerprint
    assert redrawn.test.fingerprint == fixed.test.fingerprint


def test_the_draws_of_different_parts_are_independent() -> None:
    """Parts drawn from one seed each would share their uniforms row by row."""
    data = pgd.load("digits", binarise="fixed")
    grey = pgd.load("digits")
    noise = [(a.x - b.x).flatten() for a, b in zip(data.parts, grey.parts, strict=True)]
    valid, test = noise[1], noise[2]
    error = (valid.square() * test.square()).sum().sqrt()
    assert (valid * test).sum().abs() < 5 * error


def test_binary_data_stay_as_they_are(tmp_path: Path) -> None:
    np.save(tmp_path / "bits.npy", np.eye(8))
    plain = pgd.load(tmp_path / "bits.npy")
    for way in ("threshold", "fixed"):
        assert pgd.load(tmp_path / "bits.npy", binarise=way).fingerprint == plain.fingerprint
    with pytest.raises(DataError, match=r"'bits\.npy' is binary already"):
        pgd.load(tmp_path / "bits.npy", binarise="redraw")


def test_categories_are_counted_and_long(tmp_path: Path) -> None:
    np.save(tmp_path / "words.npy", np.arange(20).reshape(10, 2))
    data = pgd.load(tmp_path / "words.npy", support="categories")
    assert data.support is Support.CATEGORIES
    assert data.categories == 20
    assert data.train.x.dtype is torch.long


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"name_or_path": "digit"}, "no data set 'digit' .* did you mean 'digits'.*ppl-gen list"),
        ({"name_or_path": "qqqq"}, "no data set 'qqqq' and no such file; see all"),
        ({"name_or_path": ""}, "no data set ''"),
        ({"name_or_path": "no/such.csv"}, "no file or folder 'no/such.csv'"),
        ({"name_or_path": torch.zeros(3)}, "got Tensor; give data in memory to as_part"),
        ({"name_or_path": "~no_such_user/x.csv"}, "no file or folder '~no_such_user/x.csv'"),
        ({"name_or_path": "x" * 5000}, "no data set 'xxx"),
        ({"name_or_path": "iris", "binarise": "fixed"}, "'iris' has support 'real'.*leave"),
        ({"name_or_path": "digits", "binarise": "half"}, "one of 'threshold', .* got 'half'"),
        ({"name_or_path": "digits", "size": 10}, r"drawn data only \(moons, .*not to 'digits'"),
        ({"name_or_path": "digits", "target": "y"}, "column of a table, which 'digits' is not"),
        ({"name_or_path": "digits", "seed": -1}, "seed must be .* got -1"),
        ({"name_or_path": "digits", "seed": 1.5}, "seed must be .* got 1.5"),
        ({"name_or_path": "digits", "support": "round"}, "one of 'binary', .*, got 'round'"),
        ({"name_or_path": "digits", "support": "binary"}, "'digits': [0-9]+ of 115008 values lie"),
        ({"name_or_path": "iris", "support": "counts"}, "'iris': [0-9]+ of 600 values .* first"),
    ],
)
def test_what_cannot_be_loaded_is_answered_by_one_sentence(options: dict, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence) as caught:
        pgd.load(**options)
    assert "\n" not in str(caught.value)


def test_every_name_is_described_and_can_be_loaded() -> None:
    assert set(pgd.names()) == {*LOCAL, *OPENERS, "binarized-mnist"}
    assert all(line and "\n" not in line for line in pgd.CATALOGUE.values())


def test_importing_the_package_imports_nothing_heavier_than_torch() -> None:
    script = (
        "import sys, torch; before = set(sys.modules); state = torch.get_rng_state();"
        "import ppl_gen.data;"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "heavy = {'sklearn', 'torchvision', 'pandas', 'pyarrow', 'PIL', 'scipy'};"
        "assert torch.equal(state, torch.get_rng_state());"
        "print(sorted(new & heavy))"
    )
    root = Path(pgd.__file__).parents[2]
    # Only this package is meant: the front door above it may import what it likes.
    stub = (
        "import sys, types; package = types.ModuleType('ppl_gen');"
        f"package.__path__ = [{str(root / 'ppl_gen')!r}]; sys.modules['ppl_gen'] = package;"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", stub + script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
