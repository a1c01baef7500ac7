"""A captured fit is the eager fit; what cannot be captured goes on in eager Pyro and says why."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import programs
import pyro
import pyro.distributions as dist
import pytest
import torch
from programs import BITS, PROGRAMS, Switches, X, Y, nothing, regression, regression_guide
from pyro import poutine
from pyro.infer import RenyiELBO, ReweightedWakeSleep, Trace_ELBO, TraceGraph_ELBO
from torch import Tensor, nn
from torch.testing import assert_close

import ppl_gen as pg
from ppl_gen.errors import FitError, StoryError, refuse_if
from ppl_gen.inference import capture, graph
from ppl_gen.inference.watch import Uncapturable
from ppl_gen.models import CVAE, GMM, M2, PPCA, VAE, AutoEncoder

IMAGES = (torch.rand(60, 1, 4, 4, generator=programs.G) < 0.4).float()
CLASSES = torch.arange(60) % 3


def fitted(build: Callable[[], tuple[Any, Any]], how: str, **options: Any) -> pg.Run:
    """50 steps in batches of 24, 24 and 12, or of all the rows."""
    torch.manual_seed(0)
    story, data = build()
    chosen = {"epochs": 17, "batch_size": 24, "learning_rate": 0.01, "seed": 1, **options}
    return pg.fit(story, data, compile=how, progress=False, **chosen)


def assert_same(run: pg.Run, other: pg.Run) -> None:
    """The same weights to the last bit; figures but for the precision in which they are added."""
    state = other.pair.state()
    for name, value in run.pair.state().items():
        assert torch.equal(value, state[name]), name
    for figure in ("elbo", "reconstruction"):
        assert run.history[figure] == pytest.approx(other.history[figure], rel=1e-5, nan_ok=True)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines in which a fit told that it goes on more slowly."""
    return [record.getMessage() for record in caplog.records if record.name == "ppl_gen"]


@pytest.fixture(autouse=True)
def _worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seventeen uses of the short last batch are few, but enough here."""
    monkeypatch.setattr(capture, "FEW", 0)


@pytest.mark.parametrize("build", PROGRAMS.values(), ids=PROGRAMS)
def test_a_captured_program_learns_what_it_learns_in_eager_pyro(
    build: Callable[[], tuple[Any, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    options = (
        {"batch_size": None, "epochs": 50} if build is PROGRAMS["a plate that subsamples"] else {}
    )
    assert_same(fitted(build, "graph", **options), fitted(build, "eager", **options))
    assert not said(caplog)


STORIES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "vae": lambda: (VAE((1, 4, 4), 2, likelihood="bernoulli", hidden=(8,)), IMAGES),
    "vae with a mixture and convolutions": lambda: (
        VAE((1, 8, 8), 2, prior="mixture(components=3)", network="conv", hidden=(4,)),
        IMAGES.repeat(1, 1, 2, 2),
    ),
    "autoencoder": lambda: (AutoEncoder((1, 4, 4), 2, likelihood="bernoulli", hidden=(8,)), IMAGES),
    "ppca": lambda: (PPCA((3,), 2), X),
    "cvae": lambda: (
        CVAE((1, 4, 4), "label(classes=3)", latent=2, likelihood="bernoulli", hidden=(8,)),
        (IMAGES, CLASSES),
    ),
    "m2": lambda: (
        M2((1, 4, 4), classes=3, latent=2, likelihood="bernoulli", hidden=(8,)),
        (IMAGES, torch.where(torch.arange(60) < 30, CLASSES, -1)),
    ),
    "gmm": lambda: (GMM((3,), 3), X),
    "gmm with a posterior": lambda: (GMM((3,), 2, posterior="normal", covariance="diagonal"), X),
    "gmm, enumerated": lambda: (GMM((3,), 3, assignment="enumerated", covariance="tied"), X),
    "gmm, amortised, Student-t": lambda: (
        GMM((3,), 2, assignment="amortised", law="student-t", hidden=(8,)),
        X,
    ),
}


@pytest.mark.parametrize("build", STORIES.values(), ids=STORIES)
def test_a_captured_story_learns_what_it_learns_in_eager_pyro(
    build: Callable[[], tuple[Any, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    run, other = fitted(build, "graph"), fitted(build, "eager")
    if build is STORIES["m2"]:  # Dice leaves out what is impossible, and adds in another order
        for name, value in run.pair.state().items():
            assert_close(value, other.pair.state()[name], rtol=0, atol=1e-6)
    else:
        assert_same(run, other)
    assert not said(caplog)


OPTIONS: dict[str, dict[str, Any]] = {
    "warm-up and clipping": {"kl_warmup": 4, "clip": 0.5},
    "a weight and free bits": {"kl_weight": 0.5, "free_bits": 0.1},
    "particles": {"particles": 3},
    **{name: {"optimizer": name} for name in ("adamw", "sgd(momentum=0.9)", "rmsprop", "adagrad")},
    "a mean of the weights": {"ema": 0.9},
    "no schedule": {"schedule": "constant", "optimizer": "adam(fused=False)"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options_of_a_fit_are_captured_too(options: dict[str, Any]) -> None:
    def build() -> tuple[Any, Any]:
        return VAE((1, 4, 4), 2, likelihood="bernoulli", hidden=(8,)), IMAGES

    given = {"validation": IMAGES[:20], **options}
    assert_same(fitted(build, "graph", **given), fitted(build, "eager", **given))


BOUNDS = {
    "several particles at once": lambda: Trace_ELBO(
        3, max_plate_nesting=1, vectorize_particles=True
    ),
    "RenyiELBO": lambda: RenyiELBO(alpha=0.5, num_particles=3),
    "ReweightedWakeSleep": lambda: ReweightedWakeSleep(num_particles=3, insomnia=1.0),
    "TraceGraph_ELBO": TraceGraph_ELBO,
}


@pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS)
@pytest.mark.parametrize(
    "build", [lambda: ((regression, regression_guide), (X, Y)), lambda: (Switches(), BITS)]
)
def test_every_bound_of_pyro_is_climbed_the_same(bound: Any, build: Any) -> None:
    if build()[1] is BITS and isinstance(bound(), RenyiELBO):
        pytest.skip("Pyro has no Renyi bound for codes without a gradient")
    assert_same(fitted(build, "graph", elbo=bound()), fitted(build, "eager", elbo=bound()))


def decides(x: Tensor, y: Tensor) -> None:
    regression(x, y)
    if x.sum() > 0:
        pyro.factor("shift", pyro.param("loc").sum())


def selects(x: Tensor, y: Tensor) -> None:
    regression(x, y)
    pyro.factor("few", -y[y > 0].square().sum() / 100)


def leaves_to_numpy(x: Tensor, y: Tensor) -> None:
    regression(x, y)
    pyro.factor("mean", torch.tensor(float(np.mean(y.numpy()))))


def prints(x: Tensor, y: Tensor) -> None:
    print(f"a batch of {len(x)}")
    regression(x, y)


calls = 0


def counts(x: Tensor, y: Tensor) -> None:
    global calls
    calls += 1
    regression(x, y)


def tosses(x: Tensor, y: Tensor) -> None:
    with poutine.scale(scale=1 + 0.1 * np.random.rand()):  # noqa: NPY002
        regression(x, y)


def replaces_an_attribute() -> tuple[Any, Any]:
    class Remembers(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> None:
            self.last = x
            regression(x, y)

    return (Remembers(), regression_guide), (X, Y)


FALLBACKS: dict[str, tuple[Callable[[], tuple[Any, Any]], str]] = {
    "an if": (
        lambda: ((decides, regression_guide), (X, Y)),
        r"decides by the value of a tensor \(test_capture.py, line \d+\)",
    ),
    "a selection": (
        lambda: ((selects, regression_guide), (X, Y)),
        r"shape depends on the data \(test_capture.py, line \d+\)",
    ),
    "numpy": (
        lambda: ((leaves_to_numpy, regression_guide), (X, Y)),
        r"reads the value of a tensor \(test_capture.py, line \d+\)",
    ),
    "print": (lambda: ((prints, regression_guide), (X, Y)), "prints"),
    "a counter": (lambda: ((counts, regression_guide), (X, Y)), "changes calls from call to call"),
    "numpy's random numbers": (
        lambda: ((tosses, regression_guide), (X, Y)),
        "changes numpy's random numbers from call to call",
    ),
    "an attribute": (replaces_an_attribute, "changes last from call to call"),
}


@pytest.mark.parametrize(("build", "reason"), FALLBACKS.values(), ids=FALLBACKS)
def test_what_cannot_be_captured_goes_on_in_eager_pyro_and_one_line_says_why(
    build: Callable[[], tuple[Any, Any]], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    validation = tuple(column[:20] for column in build()[1])
    run, lines = fitted(build, "auto", validation=validation), said(caplog)
    assert_same(run, fitted(build, "eager", validation=validation))
    assert len(lines) == 1
    assert re.search(reason, lines[0]), lines[0]


def test_a_counter_counts_every_step_of_its_program() -> None:
    def build() -> tuple[Any, Any]:
        return (counts, regression_guide), (X, Y)

    fitted(build, "eager")
    seen = calls
    fitted(build, "auto")
    after = calls
    fitted(build, "eager")
    assert after - seen == calls - after


class Weary(nn.Module):
    """A tensor of its own, no buffer, is written in place at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = torch.zeros(())

    def forward(self, x: Tensor, y: Tensor) -> None:
        self.seen.add_(1.0)
        regression(x, y)
        pyro.factor("pull", -(self.seen + 1).log() * pyro.param("loc").square().sum())


def test_a_tensor_that_a_program_writes_in_place_is_written_by_the_graph(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def build() -> tuple[Any, Any]:
        return (Weary(), regression_guide), (X, Y)

    run, other = fitted(build, "graph"), fitted(build, "eager")
    seen, known = (vars(r.pair.model)["seen"] for r in (run, other))
    assert seen == known > 50
    assert_same(run, other)
    assert not said(caplog)


def test_a_graph_is_held_against_eager_pyro_again_and_again() -> None:
    """What changes later, by other hands, is found at the next power of two."""
    factor = [1.0]
    captured = capture.Captured(lambda x: (factor[0] * x,), [], "graph", lambda rows: 100)
    for _ in range(5):
        captured(torch.ones(3))
    factor[0] = 2.0
    stale = [captured(torch.ones(3))[0][0].item() for _ in range(5)]
    assert stale == [1.0, 1.0, 2.0, 2.0, 2.0]
    assert "off by" in captured.reason


def test_data_that_a_law_cannot_score_are_found_in_the_graph() -> None:
    """Every row is looked at once, though the graph is not asked about it again."""
    data = torch.rand(60, 20).round()
    data[57, 3] = 2.0
    story = VAE((20,), 2, likelihood="bernoulli", hidden=(8,))
    for how in ("graph", "eager"):
        with pytest.raises(StoryError, match="support"):
            pg.fit(story, data, batch_size=4, epochs=3, compile=how, progress=False)


def test_a_value_that_is_not_finite_is_named_by_its_site_after_a_captured_step() -> None:
    def model(x: Tensor) -> None:
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)
        pyro.factor("runaway", (1.0 - loc).sqrt())

    errors = []
    for how in ("graph", "eager"):
        with pytest.raises(FitError) as caught:
            pg.fit(
                (model, nothing), X[:, 0] + 3, compile=how, progress=False, epochs=500,
                learning_rate=0.05, schedule="constant",
            )  # fmt: skip
        errors.append(str(caught.value))
    assert "site 'runaway' in the model" in errors[0]
    assert errors[0] == errors[1]


def test_every_shape_of_a_batch_has_a_graph() -> None:
    captured = capture.Captured(lambda x: (x.square().sum(),), [], "graph", lambda rows: 100)
    for rows in (3, 5, 3, 5, 3, 5):
        (found,) = captured(torch.arange(float(rows)))
        assert found == sum(i * i for i in range(rows))
    assert len(captured.shapes) == 2
    assert all(shape.plain is not None for shape in captured.shapes.values())


@pytest.fixture
def _compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "COMPILING", 0.0)


@pytest.mark.usefixtures("_compiling")
def test_a_compiled_fit_is_the_eager_fit_but_for_rounding(
    caplog: pytest.LogCaptureFixture,
) -> None:
    build = PROGRAMS["functions with parameters"]
    run, other = fitted(build, "auto"), fitted(build, "eager")
    for name, value in run.pair.state().items():
        assert_close(value, other.pair.state()[name], rtol=1e-4, atol=1e-5)
    assert not said(caplog)


@pytest.mark.usefixtures("_compiling")
@pytest.mark.parametrize("obstacle", ["no compiler", "no cache"])
def test_where_nothing_can_be_compiled_the_graph_runs_as_it_is(
    obstacle: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    if obstacle == "no cache":
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "file"))
    else:
        monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    torch._inductor.utils.clear_caches()
    build = PROGRAMS["a time series"]
    run = fitted(build, "auto")
    assert_same(run, fitted(build, "eager"))
    lines = said(caplog)
    assert lines
    assert "could not be compiled" in lines[0]


@pytest.mark.parametrize("change", ["value", "shape", "noise"])
def test_a_graph_that_gives_something_else_is_not_used(
    change: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A planted error in what was traced is found before it is believed."""
    right = graph.Graph.__call__

    def wrong(self: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = right(self, *inputs)
        if not outputs:
            return outputs
        figures, *gradients = outputs
        if change == "noise":
            torch.rand(())
        elif gradients:
            first = gradients[0]
            gradients[0] = first * 1.01 if change == "value" else first.flatten()[:1]
        return figures, *gradients

    monkeypatch.setattr(graph.Graph, "__call__", wrong)
    build = PROGRAMS["five layers in a loop"]
    run, lines = fitted(build, "graph"), said(caplog)
    monkeypatch.setattr(graph.Graph, "__call__", right)
    assert_same(run, fitted(build, "eager"))
    assert len(lines) == 1


def test_the_running_mean_of_the_weights_is_the_one_that_is_kept() -> None:
    """Against the mean computed by hand from the weights after every step."""

    def model(x: Tensor) -> None:
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    options: Any = {"learning_rate": 0.1, "progress": False, "schedule": "constant"}
    x, mean = X[:, 0] + 3, 0.0
    for steps in range(1, 31):
        run = pg.fit((model, nothing), x, epochs=steps, **options)
        mean = 0.9 * mean + 0.1 * run.parameters()["loc"].item()
    kept = pg.fit((model, nothing), x, epochs=30, ema=0.9, **options)
    assert kept.parameters()["loc"].item() == pytest.approx(mean, rel=1e-5)


def test_batches_of_two_sizes_may_use_two_sets_of_parameters() -> None:
    """As many gradients, but not of the same parameters: each size's own are changed."""

    def model(x: Tensor) -> None:
        sizes = {name: pyro.param(name, torch.tensor(0.0)) for name in ("large", "small")}
        loc = sizes["large" if len(x) > 20 else "small"]
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    def build() -> tuple[Any, Any]:
        return (model, nothing), X[:, 0]

    assert_same(fitted(build, "graph"), fitted(build, "eager"))


def test_an_output_that_a_graph_lacks_is_missed() -> None:
    with pytest.raises(Uncapturable, match="other results"):
        capture._hold((torch.ones(2), torch.ones(2)), (torch.ones(2),), 1e-5)
    with pytest.raises(Uncapturable, match="off by"):
        capture._hold((torch.zeros(2),), (torch.ones(2),), 1e-5)


def test_what_was_written_in_place_is_written_once_if_a_graph_has_to_be_left() -> None:
    """The suspicion does not hold, so that the step goes on in eager Pyro: a call counts as one."""
    seen = torch.zeros(())

    def counted(x: Tensor) -> tuple[Tensor, ...]:
        seen.add_(1.0)
        refuse_if(x.sum() > 10, lambda: None)
        return (x + seen,)

    captured = capture.Captured(counted, [counted], "graph", lambda rows: 100)
    with pyro.validation_enabled(True):
        for call in range(1, 12):
            (found,) = captured(torch.full((3,), 100.0 if call == 7 else 0.0))
            assert seen == call
            assert found[0] == call + (100 if call == 7 else 0)
    assert not captured.reason


def test_arrays_and_tensors_of_any_kind_may_stand_beside_a_program() -> None:
    """A look at them neither warns nor fails."""
    fixed = np.arange(5.0)
    fixed.flags.writeable = False
    with torch.inference_mode():
        inferred = torch.ones(3)
    around = [fixed, fixed[::-1], np.arange(3, dtype=np.uint32), np.array([{}]), inferred]

    def doubled(x: Tensor) -> tuple[Tensor, ...]:
        return (len(around) * x,)

    captured = capture.Captured(doubled, [doubled], "graph", lambda rows: 100)
    for _ in range(5):
        assert captured(torch.ones(2))[0][0] == 5
    assert not captured.reason
