"""From figures to findings: what each says, what would be good, what to do."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from ppl_gen.inference.evidence import Evidence, khat_threshold
from ppl_gen.inference.history import History
from ppl_gen.inference.two_sample import ClassifierTest, TwoSample
from ppl_gen.inference.verdict import Finding, Status


def evidence(found: Evidence, named: str) -> Finding:
    """Mean log evidence per datum, in nats, with the error that the draws leave.

    With global latents the figure is the log predictive density under their posterior. It passes
    with a standard error of at most 0.1 nats, if k-hat lets one believe that (our thresholds).

    Reference:
        Burda et al. (2016), section 3, https://arxiv.org/abs/1509.00519
    """
    if found.draws == 1:  # nothing is drawn where every latent is a single value
        sentence = f"The log {named} is {found.mean:.2f} nats, without error."
        good = "finite"
        status: Status = "pass" if math.isfinite(found.mean) else "fail"
        return Finding("evidence", found.mean, "nats", good, status, sentence, "", "")
    believed = not (found.khat > khat_threshold(found.draws)).double().mean() > 0.2
    exact = found.mean_error <= 0.1 and believed
    return Finding(
        "evidence",
        found.mean,
        "nats",
        "error at most 0.1 nats",
        "pass" if exact else "warn",
        f"The log {named} is {found.mean:.2f} nats, with a standard error of "
        f"{found.mean_error:.2g} from the draws; its estimate errs downwards."
        if believed
        else f"The log {named} is above {found.mean:.2f} nats; by how much these draws cannot say, "
        "as k-hat shows.",
        "" if exact else "Mend the guide first." if not believed else "Take more draws.",
        "Burda et al. 2016",
        {"error": [found.mean_error]},
    )


def gap(found: Evidence) -> Finding:
    r"""Mean distance from the ELBO up to the evidence, in nats: KL(q(z|x) || p(z|x)).

    It passes up to 0.5 nats, where guide and posterior differ by at most 0.5 in total variation
    (Pinsker's inequality, :math:`\mathrm{TV} \le \sqrt{\mathrm{KL} / 2}`), and fails beyond 2,
    where that bound says nothing any more (both limits are ours). Since the evidence errs
    downwards, so does the gap.

    Reference:
        Cremer et al. (2018), https://arxiv.org/abs/1801.03558
    """
    figure = found.gap.mean().item()
    distance = min(1.0, math.sqrt(max(figure, 0.0) / 2))
    return Finding(
        "gap",
        figure,
        "nats",
        "at most 0.5 nats",
        grade(figure, 0.5, 2.0),
        f"The guide lies {figure:.2f} nats from the posterior, a distance of at most "
        f"{distance:.2f} in total variation.",
        ""
        if figure <= 0.5
        else "Weigh its draws (log_p - log_q in sample_stats) before you use them; fit for "
        "longer, or give the guide more room (of a VAE, posterior='full').",
        "Pinsker's inequality; Cremer et al. 2018",
        {"largest": [found.gap.max().item()]},
    )


def khat(found: Evidence) -> Finding:
    """Share of data whose importance weights have too heavy a tail, by Pareto k-hat.

    It passes up to 5 % of the data and fails beyond 20 % (our limits); the threshold of a datum is
    that of Vehtari et al.

    Reference:
        Vehtari et al. (2024), https://arxiv.org/abs/1507.02646; Yao et al. (2018),
        https://arxiv.org/abs/1802.02538
    """
    threshold = khat_threshold(found.draws)
    if found.khat.isnan().any():
        reason = f"Needs at least 25 draws a datum, got {found.draws}."
        return Finding("k-hat", math.nan, "", "", "skipped", reason, "Take more draws.", "")
    share = (found.khat > threshold).double().mean().item()
    worst = found.khat.argsort(descending=True)[:5]
    return Finding(
        "k-hat",
        share,
        "of the data",
        f"at most 0.05 of the data above {threshold:.2f}",
        grade(share, 0.05, 0.20),
        "The guide covers the posterior of every datum well enough to reweigh its draws."
        if share == 0
        else f"For {share:.1%} of the data the guide misses so much of the posterior that its "
        "draws cannot be reweighed.",
        ""
        if share <= 0.05
        else f"Distrust the latents of rows such as {worst.tolist()}; give "
        "the guide heavier tails or more room (of a VAE, posterior='full').",
        "Vehtari et al. 2024; Yao et al. 2018",
        {"worst rows": [float(i) for i in worst], "worst k-hat": found.khat[worst].tolist()},
    )


def joint_khat(found: Evidence) -> Finding:
    """Pareto k-hat of the weights of the global latents, one figure for all data.

    It passes below 0.5, and fails above the threshold for so many draws unless the gap is below
    0.05 nats (our limit): a guide so near the posterior has a heavy tail, but little in it.

    Reference:
        Yao et al. (2018), https://arxiv.org/abs/1802.02538
    """
    threshold, figure = khat_threshold(found.draws), found.khat.item()
    if math.isnan(figure):
        return khat(found)
    status = grade(figure, 0.5, threshold)
    if status == "fail" and found.gap.item() < 0.05:
        status = "warn"
    return Finding(
        "k-hat",
        figure,
        "",
        f"at most 0.5, usable to {threshold:.2f}",
        status,
        "The guide covers the posterior of the global latents well enough to reweigh its draws."
        if status != "fail"
        else "The guide misses so much of the posterior of the global latents that its draws "
        "cannot be reweighed.",
        ""
        if status == "pass"
        else "Take more draws, fit for longer, or take a guide with correlations, such as "
        "AutoMultivariateNormal.",
        "Yao et al. 2018",
        {"draws": [float(found.draws)]},
    )


def matches_prior(
    classified: Mapping[str, ClassifierTest], discrepancies: Mapping[str, TwoSample]
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
        else "Give the code a prior that can follow it (of a VAE, prior='vamp' or prior='flow'), "
        "fit for longer, or put more weight on the match of the two.",
        "Lopez-Paz and Oquab 2017; Hoffman and Johnson 2016",
        {
            "p-value": [p_value],
            "MMD p-value": [min(1.0, sites * min(t.p_value for t in discrepancies.values()))],
            **details,
        },
    )


def settled(history: History) -> Finding:
    """Whether the ELBO had stopped rising by itself; or what is climbed in its place.

    A falling learning rate brings any ELBO to rest, so that only the epochs are looked at in which
    it was at least half its largest. The last tenth of them (at least 10) is cut in two; the figure
    is how much the mean ELBO per datum rose from the first half to the second. It passes below 0.1
    nats or within two standard errors of the noise, and fails from 1 nat on (our limits). A climb
    that is slower than this is not seen.
    """
    elbo = torch.tensor([epoch.climbed for epoch in history], dtype=torch.float64)
    name = "ELBO" if any(math.isfinite(e) for e in history["elbo"]) else "objective"
    rate = torch.tensor(history["learning_rate"], dtype=torch.float64)
    if len(rate):
        fast = (rate >= rate.max() / 2).nonzero().max().item() + 1
        elbo = elbo[: int(fast)]
    elbo = elbo[elbo.isfinite()]
    if len(elbo) < 20:
        reason = f"Needs at least 20 epochs before the learning rate falls, got {len(elbo)}."
        return Finding("settled", math.nan, "", "", "skipped", reason, "", "")
    window = max(10, len(elbo) // 10)
    first, second = elbo[-window:].split([window // 2, window - window // 2])
    rise = (second.mean() - first.mean()).item()
    noise = (first.var() / len(first) + second.var() / len(second)).sqrt().item()
    rising = rise > 0.1 and rise > 2 * noise
    when = "" if len(elbo) == len(history) else " before the learning rate had halved"
    verb = "rose" if rise >= 0 else "fell"
    return Finding(
        "settled",
        rise,
        "nats",
        "below 0.1 nats",
        "pass" if not rising else "warn" if rise < 1 else "fail",
        f"Over the last {window} epochs{when} the {name} {verb} by {abs(rise):.3f} nats per datum"
        f" (noise {noise:.3f}).",
        "Fit for more epochs." if rising else "",
        "",
        {"noise": [noise]},
    )


def converged(history: History, tolerance: float) -> Finding:
    """Whether the likelihood had stopped rising when EM ended, in nats per datum.

    It passes if the last rise was below the tolerance that EM was asked for. That it has come to
    rest does not say that there is no higher maximum elsewhere: more restarts look for one.

    Reference:
        Dempster et al. (1977), https://doi.org/10.1111/j.2517-6161.1977.tb01600.x
    """
    elbo = history["elbo"]
    if len(elbo) < 2:
        reason = f"Needs at least 2 iterations, got {len(elbo)}."
        return Finding("settled", math.nan, "", "", "skipped", reason, "Raise epochs.", "")
    rise = elbo[-1] - elbo[-2]
    settled = rise <= tolerance
    return Finding(
        "settled",
        rise,
        "nats",
        f"at most {tolerance:g} nats",
        "pass" if settled else "warn",
        f"In the last of {len(elbo)} iterations the log-likelihood rose by {rise:.2g} nats per "
        "datum.",
        "" if settled else "Raise epochs: EM was stopped before it had come to rest.",
        "Dempster et al. 1977",
    )


def grade(figure: float, good: float, bad: float) -> Status:
    """``pass`` up to ``good``, ``warn`` up to ``bad``, ``fail`` beyond."""
    return "pass" if figure <= good else "warn" if figure <= bad else "fail"
