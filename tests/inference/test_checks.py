"""Each check passes where all is well, finds the fault it is for, and says when it cannot look."""

import importlib
import json
import math
from dataclasses import fields, replace
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn

import ppl_gen as pg
from ppl_gen.inference.checks import Subject
from ppl_gen.inference.checks.advice import GENERIC, Advice
from ppl_gen.inference.checks.check import reconciled
from ppl_gen.inference.checks.weights import evidence, joint_khat, khat
from ppl_gen.inference.estimators import Evidence
from ppl_gen.inference.tracing import Fix
from ppl_gen.inference.verdict import Finding, Verdict
from ppl_gen.models import PPCA, VAE, AutoEncoder

# By its name, as the package shows the function of the same name in its place.
check_module: Any = importlib.import_module("ppl_gen.inference.checks.check")


def linear_data(rows: int = 200) -> Tensor:
    """Rows of a linear-Gaussian story with a clear code."""
    generator = torch.Generator().manual_seed(0)
    weight = 2 * torch.randn(2, 4, generator=generator)
    code = torch.randn(rows, 2, generator=generator)
    return code @ weight + 0.5 * torch.randn(rows, 4, generator=generator)


def as_it_is(story: object, data: object) -> pg.Run:
    """A run whose story keeps the weights it has."""
    return pg.fit(story, data, epochs=1, learning_rate=1e-12, warm_start=True, progress=False)


@pytest.fixture(scope="module")
def exact() -> tuple[pg.Run, Tensor]:
    """PPCA at its maximum, with the exact posterior for a guide."""
    x = linear_data()
    return as_it_is(PPCA.maximum_likelihood(x, 2), x), x


def test_an_exact_guide_of_a_true_story_passes(exact: tuple[pg.Run, Tensor]) -> None:
    run, x = exact
    verdict = pg.check(run, x, draws=200)

    assert run.verdict is verdict
    assert verdict["evidence"].figure == pytest.approx(
        run.story.log_evidence(x).mean().item(), abs=1e-3
    )
    assert verdict["gap"].figure == pytest.approx(0.0, abs=1e-3)
    for name in ("evidence", "gap", "k-hat", "active units", "posterior predictive"):
        assert verdict[name].status == "pass", verdict[name]


def test_a_guide_that_is_too_narrow_is_found_by_gap_and_khat(
    exact: tuple[pg.Run, Tensor],
) -> None:
    """All scales halved: KL(q || p) is known, and the evidence, so the gap, errs downwards."""
    run, x = exact
    narrow = Narrowed(run.story, 0.5)

    verdict = pg.check(as_it_is(narrow, x), x, draws=1000)

    exact_gap = 2 * (0.5 * (0.5**2 - 1) - math.log(0.5))
    assert verdict["gap"].figure == pytest.approx(exact_gap, abs=0.1)
    assert verdict["gap"].figure < exact_gap
    assert verdict["k-hat"].status == "fail"
    assert verdict.status == "fail"


class Narrowed:
    """A story whose guide has all its scales multiplied."""

    def __init__(self, story: PPCA, factor: float) -> None:
        self.story = story
        self.factor = factor

    def model(self, x: Tensor) -> None:
        """The model as it is."""
        self.story.model(x)

    def guide(self, x: Tensor) -> None:
        """The exact posterior, narrowed."""
        law = self.story.exact_posterior(x)
        pyro.param("unused", torch.tensor(0.0))
        with pyro.plate("observations", len(x)):
            narrow = dist.MultivariateNormal(law.loc, scale_tril=self.factor * law.scale_tril)
            pyro.sample("z", narrow)


def test_a_likelihood_of_the_wrong_scale_is_found_in_replicated_data(
    exact: tuple[pg.Run, Tensor],
) -> None:
    _, x = exact
    story = PPCA.maximum_likelihood(x, 2)
    with torch.no_grad():
        story.log_scale += math.log(4.0)
    story.set_guide_to_exact_posterior()

    finding = pg.check(as_it_is(story, x), x, draws=200)["posterior predictive"]

    assert finding.status == "fail"
    assert "sd of x" in finding.meaning


def test_a_collapsed_code_has_no_active_units() -> None:
    """A heavy KL on pure noise leaves the prior alone."""
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    run = pg.fit(
        VAE((4,), latent=3), x, epochs=60, learning_rate=5e-3, kl_weight=20.0, progress=False
    )

    finding = pg.check(run, x, draws=50)["active units"]

    assert finding.figure == 0
    assert finding.status == "fail"
    assert max(finding.details["KL of z"]) < 0.05


def test_a_code_that_ignores_the_data_is_idle_under_an_autoguide_too() -> None:
    """Its guide computes the code from another draw: one draw varies, the mean does not."""

    def model(x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(0.0 * z, 1.0).to_event(1), obs=x)

    x = torch.randn(60, 1, generator=torch.Generator().manual_seed(0))
    run = pg.fit((model, "AutoNormal"), x, epochs=300, learning_rate=0.02, progress=False)

    finding = pg.check(run, x, draws=200)["active units"]

    assert (finding.figure, finding.status) == (0, "fail"), finding


def test_the_kl_of_each_dimension_adds_up_to_that_of_the_site() -> None:
    x = linear_data()
    run = pg.fit(VAE((4,), latent=3), x, validation=x, epochs=20, progress=False)

    kl = pg.check(run, x, draws=50)["active units"].details["KL of z"]
    best = max(run.history, key=lambda epoch: epoch.valid_elbo)

    assert sum(kl) == pytest.approx(best.valid_kl, rel=1e-4)
    assert len(kl) == 3


def test_a_point_has_no_posterior_to_believe() -> None:
    """What was skipped keeps the whole from passing."""
    x = linear_data()
    run = pg.fit(AutoEncoder((4,), latent=2), x, epochs=30, progress=False)

    verdict = pg.check(run, x, draws=50)

    assert [verdict[n].status for n in ("evidence", "gap", "k-hat")] == ["skipped"] * 3
    assert "one value of 'z'" in verdict["k-hat"].meaning
    assert verdict.status != "pass"


def conjugate(x: Tensor) -> None:
    """A mean with a normal prior: posterior and evidence are known."""
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0), obs=x)


def conjugate_posterior(x: Tensor) -> None:
    """Its exact posterior, with a free parameter that is already right."""
    precision = 1.0 + len(X)
    shift = pyro.param("shift", torch.tensor(0.0))
    pyro.sample("loc", dist.Normal(X.sum() / precision + shift, precision**-0.5))


X = torch.randn(30, generator=torch.Generator().manual_seed(1))


def test_global_latents_are_checked_on_the_data_of_the_fit() -> None:
    run = as_it_is((conjugate, conjugate_posterior), X)

    verdict = pg.check(run, X, draws=200)
    elsewhere = pg.check(run, X + 1, draws=200)

    covariance = torch.eye(30) + torch.ones(30, 30)
    evidence = dist.MultivariateNormal(torch.zeros(30), covariance).log_prob(X).item()
    assert verdict["evidence"].figure == pytest.approx(evidence, abs=1e-3)
    assert verdict["gap"].figure == pytest.approx(0.0, abs=1e-3)
    assert verdict["k-hat"].status == "pass"
    assert elsewhere["k-hat"].status == "skipped"
    assert "data of the fit" in elsewhere["k-hat"].meaning


def test_too_few_draws_are_said_and_not_passed(exact: tuple[pg.Run, Tensor]) -> None:
    run, x = exact
    finding = pg.check(run, x, draws=10)["k-hat"]

    assert finding.status == "skipped"
    assert "at least 25 draws" in finding.meaning


def test_a_verdict_is_as_bad_as_its_worst_finding_and_comes_back_from_json() -> None:
    good = Finding("a", 1.0, "nats", "", "pass", "fine", "", "", {"x": [1.0, math.inf]})
    verdicts = {
        status: Verdict((good, replace(good, check="b", status=status)), 10, 100)
        for status in ("pass", "warn", "fail", "skipped")
    }

    assert {name: v.status for name, v in verdicts.items()} == {
        "pass": "pass",
        "warn": "warn",
        "fail": "fail",
        "skipped": "warn",
    }
    for verdict in verdicts.values():
        text = verdict.to_json()
        json.loads(text, parse_constant=pytest.fail)
        assert Verdict.from_json(text).to_json() == text
    with pytest.raises(pg.RunError, match="verdict cannot be read"):
        Verdict.from_json("{}")


def test_a_verdict_prints_what_to_do() -> None:
    finding = Finding("gap", 3.0, "nats", "at most 0.5", "fail", "It is [bold]far[/].", "Mend.", "")

    text = str(Verdict((finding,), 10, 100))

    assert "gap: It is [bold]far[/]. Mend." in text
    assert "3 nats" in text
    with pytest.raises(KeyError, match="there is no check 'k-hat'"):
        Verdict((finding,), 10, 100)["k-hat"]


def point_mean(x: Tensor) -> None:
    """Rows of unknown mean, with a prior of it."""
    loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
    with pyro.plate("observations", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0), obs=x)


def test_where_all_latents_are_points_the_likelihood_is_exact_and_no_posterior_is_claimed() -> None:
    x = 3 + torch.randn(400, generator=torch.Generator().manual_seed(0))
    run = pg.fit((point_mean, "AutoDelta"), x, epochs=300, learning_rate=0.05, progress=False)
    new = torch.tensor([2.0, 3.0, 4.0])

    verdict = pg.check(run, new)

    loc = run.parameters()["AutoDelta.loc"].item()
    assert verdict["evidence"].figure == pytest.approx(
        torch.distributions.Normal(loc, 1.0).log_prob(new).mean().item(), abs=1e-5
    )
    assert verdict["evidence"].status == "pass"
    assert verdict["gap"].status == verdict["k-hat"].status == "not applicable"
    assert "single values of 'loc'" in verdict["gap"].meaning


def test_a_point_that_is_computed_again_has_the_density_it_had() -> None:
    """An autoguide computes its sites from one draw, again for every block, up to the last bit."""
    drawn = torch.tensor([1.0, 2.0, 3.0])

    def guide() -> None:
        again = drawn * (1 + 1e-7)
        pyro.sample("loc", dist.Delta(again, torch.tensor(0.5), event_dim=1))

    trace = poutine.trace(Fix({"loc": drawn}, at_once=True)(guide)).get_trace()

    node: Any = trace.nodes["loc"]
    assert torch.equal(node["value"], drawn)
    assert node["fn"].log_prob(node["value"]).item() == 0.5


def test_a_datum_that_is_not_a_number_is_named_and_the_others_are_checked(
    exact: tuple[pg.Run, Tensor],
) -> None:
    run, x = exact
    broken = x.clone()
    broken[17, 2] = math.nan

    verdict = pg.check(run, broken, draws=100, progress=False)

    assert verdict["doctor"].status == "fail"
    assert "17" in verdict["doctor"].meaning
    assert verdict.data == len(x) - 1
    assert not any("broke" in finding.meaning for finding in verdict.findings)
    assert verdict["gap"].figure == pytest.approx(0.0, abs=1e-3)
    assert verdict["k-hat"].status == "pass"


def test_a_check_that_breaks_costs_no_other(
    exact: tuple[pg.Run, Tensor], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(subject: object) -> list[Finding]:
        raise IndexError("of some kind")

    first, *rest = check_module.CHECKS
    monkeypatch.setattr(check_module, "CHECKS", (replace(first, look=broken), *rest))
    run, x = exact

    verdict = pg.check(run, x, draws=100, progress=False)

    assert verdict["doctor"].status == "skipped"
    assert "IndexError('of some kind')" in verdict["doctor"].meaning
    assert verdict["gap"].status == "pass"
    assert verdict.status == "warn"
    assert "of some kind" in caplog.text


def test_what_was_done_before_an_interrupt_is_kept(
    exact: tuple[pg.Run, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(subject: object) -> list[Finding]:
        raise KeyboardInterrupt

    *first, last = (c for c in check_module.CHECKS if c.level == "quick")
    monkeypatch.setattr(check_module, "CHECKS", (*first, replace(last, look=interrupted)))
    run, x = exact

    with pytest.raises(KeyboardInterrupt, match="kept"):
        pg.check(run, x, draws=100, progress=False)

    assert run.verdict is not None
    assert run.verdict["gap"].status == "pass"
    assert run.verdict[last.findings[0]].status == "skipped"
    assert "interrupted" in run.verdict[last.findings[0]].meaning


def test_each_check_says_beforehand_what_it_will_cost(exact: tuple[pg.Run, Tensor]) -> None:
    run, x = exact
    subject = Subject(run, x, train=x)
    for check in check_module.CHECKS:
        cost = check.cost(subject)
        assert cost.evaluations >= 0
        assert not cost.evaluations or cost.work


def test_going_on_answers_what_the_curves_let_one_fear() -> None:
    fear = Finding("settled", 1.0, "", "", "fail", "It was still rising.", "Fit on.", "")
    for status, wanted in (("pass", "pass"), ("warn", "fail")):
        gone = Finding("longer fit", 0.0, "", "", status, "", "", "")
        found = {f.check: f for f in reconciled([fear, gone])}
        assert found["settled"].status == wanted
        assert ("see 'longer fit'" in found["settled"].meaning) == (wanted == "pass")
    assert reconciled([fear]) == [fear]


def test_a_posterior_that_is_near_has_come_to_rest() -> None:
    moved = Finding("R-hat", 0.4, "sd moved", "", "warn", "It moved.", "Fit on.", "")
    khat = Finding("k-hat", 0.4, "", "", "pass", "", "", "")

    def told(nats: float, *others: Finding) -> Finding:
        gap = Finding("gap", nats, "nats", "", "pass", "", "", "")
        return reconciled([moved, gap, *others])[0]

    assert told(0.05, khat).status == "pass"
    assert told(0.05, khat).meaning.endswith("where it ended: see 'gap'.")
    assert told(0.3, khat) == moved
    assert told(0.05) == moved
    assert told(0.05, replace(khat, status="warn")) == moved


class OneCode(nn.Module):
    """A code of some numbers for each row, read off by an encoder."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.decoder, self.encoder = size, nn.Linear(size, 3), nn.Linear(3, size)

    def model(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(self.size), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 1.0).to_event(1))


def test_one_number_is_not_advised_to_go_together_with_others() -> None:
    one, two = (
        Advice.of(pg.fit(OneCode(size), torch.randn(20, 3), epochs=1, progress=False))
        for size in (1, 2)
    )
    assert "MultivariateNormal" not in one.correlations
    assert "MultivariateNormal" in two.correlations
    assert one.amortised


@pytest.mark.parametrize(
    ("gap", "told", "believed"), [(0.02, "warn", "pass"), (1.0, "fail", "warn")]
)
def test_a_heavy_tail_in_which_little_lies_only_warns(gap: float, told: str, believed: str) -> None:
    of_each = torch.ones(40, dtype=torch.float64)
    found = Evidence(
        -of_each, 0.01 * of_each, 500 * of_each, -(1 + gap) * of_each, 0.9 * of_each, 1000
    )
    one = Evidence(*(getattr(found, f.name)[:1] for f in fields(Evidence)[:-1]), 1000)
    for finding in (khat(found), joint_khat(one, GENERIC)):
        assert finding.status == told
        assert ("little lies there" in finding.meaning) == (gap < 0.05)
    assert evidence(found, "evidence per datum").status == believed
