"""Is the code used, and do the codes of all data together look like their prior?"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ppl_gen.errors import StoryError
from ppl_gen.inference.checks.advice import GENERIC, Advice, sentence
from ppl_gen.inference.checks.subject import Check, Cost, Subject
from ppl_gen.inference.codes import (
    LEAST_ROWS,
    SPLIT_CODES,
    Split,
    active,
    code_means,
    drawn_codes,
    split_of,
)
from ppl_gen.inference.estimators import ClassifierTest, TwoSample, classifier_test, mmd_test
from ppl_gen.inference.verdict import Finding, grade


def active_units(subject: Subject) -> Finding:
    """How many of the code's dimensions answer to the data: :func:`ppl_gen.inference.codes.active`.

    It passes if half of them do, and fails if none does (our limits): the code has collapsed onto
    the prior. The details hold the KL of each dimension where prior and guide both factorise, in
    nats.

    Reference:
        Burda et al. (2016), section 5.1, https://arxiv.org/abs/1509.00519
    """
    run = subject.run
    if not run.structure.has_codes:
        reason = "The story has no code of its own for each datum."
        return subject.skipped("active units", reason, "not applicable")
    if reason := _without_codes(subject):
        return subject.skipped("active units", reason)
    means, divergences = code_means(run, subject.batch, subject.memory, subject.seed)
    if not means:
        return subject.skipped("active units", "The guide's laws have no means to compare.")
    if len(next(iter(means.values()))) < 2:
        return subject.skipped("active units", "Needs at least 2 data, got 1.")
    details = {f"variance of {name}": mean.var(0).tolist() for name, mean in means.items()}
    for name, divergence in divergences.items():
        details[f"KL of {name}"] = divergence.mean(0).tolist()
    answers, total = active(means)
    share = answers / total
    return Finding(
        "active units",
        float(answers),
        f"of {total}",
        f"at least {math.ceil(total / 2)} of {total}",
        "fail" if not answers else "pass" if share >= 0.5 else "warn",
        f"{answers} of {total} dimensions of the code answer to the data.",
        ""
        if share >= 0.5
        else "Free bits, a KL warm-up, a smaller code or a weaker decoder bring more into use.",
        "Burda et al. 2016",
        details,
    )


def aggregate_posterior(subject: Subject) -> Finding:
    """Whether the codes of all data together look like draws of the prior.

    See :func:`matches_prior`. One draw of each datum's code is
    compared with one draw of its prior, which need not have a density. Where the story leaves a
    code's prior out of its bound, as an autoencoder does, nothing has drawn the two together.
    """
    run, name = subject.run, "aggregate posterior"
    if not run.structure.has_codes:
        return subject.skipped(
            name, "The story has no code of its own for each datum.", "not applicable"
        )
    reason = _without_codes(subject)
    if not reason and subject.rows < LEAST_ROWS:
        reason = f"Needs at least {LEAST_ROWS} data, got {subject.rows}."
    if reason:
        return subject.skipped(name, reason)
    try:
        drawn = drawn_codes(run, subject.batch, subject.seed)
    except StoryError as error:
        return subject.skipped(name, f"Codes and prior cannot both be drawn: {error}.")
    if not drawn:
        return subject.skipped(name, "No code is a real number.", "not applicable")
    return matches_prior(
        {site: classifier_test(*pair, seed=subject.seed) for site, pair in drawn.items()},
        {site: mmd_test(*pair, seed=subject.seed) for site, pair in drawn.items()},
        Advice.of(run),
    )


def parts_of_kl(subject: Subject) -> list[Finding]:
    """Mutual information of code and datum, and KL of all codes from the prior."""
    names = ("mutual information", "marginal KL")
    if not subject.run.structure.has_codes:
        reason = "The story has no code of its own for each datum."
        return [subject.skipped(name, reason, "not applicable") for name in names]
    reason = _without_codes(subject)
    if not reason and subject.rows < LEAST_ROWS:
        reason = f"Needs at least {LEAST_ROWS} data, got {subject.rows}."
    if reason:
        return [subject.skipped(name, reason) for name in names]
    try:
        found = split_of(subject.run, subject.batch, subject.seed)
    except StoryError as error:
        reason = f"The KL cannot be split: {error}."
        return [subject.skipped(name, reason) for name in names]
    return [information(found), marginal(found, Advice.of(subject.run))]


def information(found: Split) -> Finding:
    r"""How much a code says of its datum: :math:`I_q(x; z)`, in nats, at most ``log N``.

    It fails below 0.1 nats and warns below 0.3 (our limits): the code has collapsed, and whatever
    is drawn does not depend on it. Where nearly every datum has a code of its own it ends at its
    ceiling, and is but a lower bound.

    Reference:
        Hoffman and Johnson (2016), http://approximateinference.org/accepted/HoffmanJohnson2016.pdf
    """
    figure, ceiling = found.information, math.log(found.rows)
    status = "fail" if figure < 0.1 else "warn" if figure < 0.3 else "pass"
    least = "at least " if figure > ceiling - 1 else ""
    return Finding(
        "mutual information",
        figure,
        "nats",
        "at least 0.3 nats",
        status,
        f"A code tells {least}{figure:.2f} nats of which datum it is of, out of {ceiling:.2f}."
        if status == "pass"
        else f"A code tells but {figure:.2f} nats of which datum it is of: it has collapsed onto "
        "the prior.",
        ""
        if status == "pass"
        else "Free bits, a KL warm-up or a weaker decoder (one that leaves something to the code) "
        "bring it into use.",
        "Hoffman and Johnson 2016",
        {"KL": [found.kl], "ceiling": [ceiling], "error": [found.error]},
    )


def marginal(found: Split, advice: Advice = GENERIC) -> Finding:
    r"""How far the codes of all data together are from the prior: KL(q(z) || p(z)), in nats.

    What is lost of the ELBO as the prior is in places where no code is, holes, or codes where no
    prior is. It passes up to 0.5 nats and fails beyond 2 (our limits, as of ``gap``). Where the
    codes of single data hardly overlap, so few data do not tell what their law is: it is skipped.

    Reference:
        Hoffman and Johnson (2016), http://approximateinference.org/accepted/HoffmanJohnson2016.pdf
    """
    name, ceiling = "marginal KL", math.log(found.rows)
    if found.information > ceiling - 1:
        reason = (
            f"Codes of {found.rows} data hardly overlap (they tell {found.information:.1f} of "
            f"{ceiling:.1f} nats), so that their common law is not known: give more data."
        )
        return Finding(name, math.nan, "", "", "skipped", reason, "", "")
    figure = found.marginal
    status = grade(figure - 2 * found.error, 0.5, 2.0)
    return Finding(
        name,
        figure,
        "nats",
        "at most 0.5 nats, or by chance",
        status,
        f"The codes of all data lie {figure:.2f} ± {found.error:.2g} nats from the prior"
        + ("." if status == "pass" else ": draws of the prior are decoded where no data are."),
        "" if status == "pass" else f"{sentence(advice.prior)}.",
        "Hoffman and Johnson 2016",
        {"KL": [found.kl], "mutual information": [found.information]},
    )


def _without_codes(subject: Subject) -> str:
    """Why the guide has no code for these rows; empty if it has."""
    if subject.run.structure.keeps_rows and not subject.is_of_the_fit:
        return "The guide has a code for each datum of the fit alone: check(run, data.train)."
    return ""


def matches_prior(
    classified: Mapping[str, ClassifierTest],
    discrepancies: Mapping[str, TwoSample],
    advice: Advice = GENERIC,
) -> Finding:
    r"""How well a classifier tells codes of the data from draws of the prior, 0.5 being chance.

    What the story draws is decoded from its prior, what it was fitted to from the aggregate
    posterior, :math:`\frac{1}{N} \sum_n q(z \mid x_n)`: where they differ, draws need not look
    like the data, however good the evidence. The figure is the share of held-out codes that are
    told, of the site where it is largest. It passes up to 0.60, or if guesses do as well in 5 % of
    cases, so that chance never warns; and fails beyond 0.75 (our limits). P-values are multiplied
    by the number of sites. The discrepancy's stands in the details: it weighs all directions alike,
    and sees less than the classifier in many dimensions.

    Args:
        classified: Of each site, codes against draws of the prior.
        discrepancies: The same by the maximum mean discrepancy.
        advice: What can be changed of the story.

    References:
        Lopez-Paz and Oquab (2017), https://arxiv.org/abs/1610.06545; Gretton et al. (2012),
        https://jmlr.org/papers/v13/gretton12a.html; that the two ought to match: Hoffman and
        Johnson (2016), http://approximateinference.org/accepted/HoffmanJohnson2016.pdf
    """
    worst = max(classified, key=lambda site: classified[site].accuracy)
    found, sites = classified[worst], len(classified)
    p_value = min(1.0, sites * found.p_value)
    status = "pass" if p_value >= 0.05 else grade(found.accuracy, 0.60, 0.75)
    details = {f"accuracy of {site}": [test.accuracy] for site, test in classified.items()}
    return Finding(
        "aggregate posterior",
        found.accuracy,
        "accuracy",
        "at most 0.60, or by chance",
        status,
        "A classifier hardly tells codes of the data from draws of the prior: it is right for "
        f"{found.accuracy:.0%}, chance for 50%."
        if status == "pass"
        else f"A classifier tells {found.accuracy:.0%} of the data's {worst!r} from draws of its "
        "prior (chance: 50%), so that what the story draws need not look like the data.",
        ""
        if status == "pass"
        else f"{sentence(advice.prior)}; fit for longer, or put more weight on the match of the "
        "two.",
        "Lopez-Paz and Oquab 2017; Hoffman and Johnson 2016",
        {
            "p-value": [p_value],
            "MMD p-value": [min(1.0, sites * min(t.p_value for t in discrepancies.values()))],
            **details,
        },
    )


ACTIVE_UNITS = Check(
    "is the code used",
    ("active units",),
    lambda subject: [active_units(subject)],
    lambda subject: Cost(f"the guide on {subject.rows:,} rows", subject.rows),
    concerns=lambda structure: structure.has_codes,
)
AGGREGATE_POSTERIOR = Check(
    "do codes of the data look like the prior",
    ("aggregate posterior",),
    lambda subject: [aggregate_posterior(subject)],
    lambda subject: Cost(f"a classifier of {subject.rows:,} codes"),
    concerns=lambda structure: structure.has_codes,
)
PARTS_OF_KL = Check(
    "what does the code tell, and is it where the prior is",
    ("mutual information", "marginal KL"),
    parts_of_kl,
    lambda subject: Cost(
        f"{SPLIT_CODES} codes under the guide of {subject.rows:,} rows",
        SPLIT_CODES * subject.rows / 8,
    ),
    concerns=lambda structure: structure.has_codes,
)
