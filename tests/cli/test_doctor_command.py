"""``ppl-gen doctor``: a table or JSON, and an exit status that says whether something fails."""

import json
from pathlib import Path

from cli_support import STORY, Command

LEAK = """
import pyro, torch
import pyro.distributions as dist

def model(x):
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z[:, None], torch.ones(3)).to_event(1), obs=x)

def guide(x):
    slope = pyro.param("slope", torch.tensor(1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(slope * (x - x.mean(0)).sum(-1), 1.0))
"""


def test_a_story_that_is_well_gives_a_table_and_status_0(command: Command, rows_csv: Path) -> None:
    Path("mine.py").write_text(STORY.replace("EVENT", "pass"))

    said = command("doctor", "mine.py", "--data", rows_csv, "--target", "kind")

    assert said.status == 0, said.err
    assert "verdict: pass" in said.out
    for look in ("programs", "finite", "rows apart", "weights", "gradients", "supports"):
        assert f"{look}: " in said.out


def test_a_fault_gives_status_1_and_is_named_in_the_table_and_in_json(
    command: Command, rows_csv: Path
) -> None:
    Path("leak.py").write_text(LEAK)
    asked = ("doctor", "leak.py", "--data", rows_csv, "--target", "kind")

    table, plain = command(*asked), command(*asked, "--json")

    assert table.status == plain.status == 1
    assert "'z' of the guide" in " ".join(table.out.split())
    found = json.loads(plain.out)
    assert found["status"] == "fail"
    faults = [finding for finding in found["findings"] if finding["status"] == "fail"]
    assert [finding["check"] for finding in faults] == ["rows apart"]
    assert "dim=-1" in faults[0]["remedy"]


def test_programs_that_do_not_fit_are_told_in_the_table(command: Command, rows_csv: Path) -> None:
    Path("shape.py").write_text(LEAK.replace("torch.ones(3)", "torch.ones(4)"))

    said = command("doctor", "shape.py", "--data", rows_csv, "--target", "kind")

    assert said.status == 1
    assert "programs" in said.out
    assert "Traceback" not in said.out + said.err


def test_a_story_of_ppl_gen_is_looked_over_by_its_name(command: Command, rows_csv: Path) -> None:
    small = ("--latent", "2", "--hidden", "8")

    said = command("doctor", "vae", "--data", rows_csv, "--target", "kind", *small)

    assert said.status == 0, said.err
    assert "verdict: pass" in said.out


def test_a_fit_says_what_fails_and_goes_on(command: Command, rows_csv: Path) -> None:
    Path("leak.py").write_text(LEAK)

    said = command("fit", "leak.py", "--data", rows_csv, "--target", "kind", "--epochs", "1")

    assert said.status == 0
    notes = [line for line in said.err.splitlines() if line.startswith("ppl-gen: note: ")]
    assert len([line for line in notes if "'z' of the guide" in line]) == 1


def test_what_is_no_story_is_refused_with_the_nearest_name(command: Command) -> None:
    assert command("doctor", "veo").complaint.endswith("did you mean vae?")
    assert "name the story before" in command("doctor", "--data", "digits").complaint
    assert "vae needs data" in command("doctor", "vae").complaint
    assert "batch_size must be at least 1" in command("doctor", "vae", "--batch-size", 0).complaint
