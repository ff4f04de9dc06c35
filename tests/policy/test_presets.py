"""What ``auditor policy init`` writes can PASS, for every preset and base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from auditor._audit.enough import no_pass, what_would_do
from auditor._audit.plan import make_plan
from auditor._cli import cli
from auditor._files.bundled import micro_world
from auditor.policy import Policy, as_read, load_policy
from auditor.policy.concepts.sets import concept_names, prompt_templates, resolve_names
from auditor.policy.presets import DOMAINS, BaseFacts, domain_called, new_policy
from tests.conftest import short_policy

BASES = ("micro", "folder", "hf://nobody/nothing")
ERASED = {
    "people": "Borin Talvek",
    "objects": "golf ball",
    "style": "Vincent van Gogh",
    "explicit": "nudity",
    "weapons": "a tank",
}
TRAIN = [part for number in range(8) for part in ("--train", f"tool {number}")]


def init(folder: Path, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["policy", "init", str(folder / "gate.yaml"), *arguments])
    return done.exit_code if not hasattr(done.exception, "exit_code") else done.exception.exit_code, (
        done.output + str(done.exception or "")
    )


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("domain", ERASED)
def test_every_preset_can_pass_on_every_base(tmp_path: Path, domain: str, base: str) -> None:
    if base == "folder":
        shutil.copytree(micro_world(), tmp_path / "base", symlinks=False)
        base = str(tmp_path / "base")
    train = TRAIN if domain == "weapons" else []
    code, said = init(tmp_path, "--erase", ERASED[domain], "--domain", domain, "--base", base, *train)
    if base == "micro" and domain in ("style", "explicit"):
        assert code == 2 and "needs another base" in said
        return
    assert code == 0, said
    policy = load_policy(tmp_path / "gate.yaml")
    assert policy.erase[0].name == ERASED[domain] and len(policy.erase[0].templates) >= 10
    assert len(policy.retain) >= 6 and all(len(kept.templates) >= 10 for kept in policy.retain)
    assert policy.sampler.size == (32 if base == "micro" or base.endswith("base") else 512)
    looks = policy.detectors[0].options
    labels = looks["domains"]["other"]["options"]["labels"] if "domains" in looks else looks["labels"]
    assert len({as_read(label) for label in resolve_names(labels)}) >= 20
    forbidden = {as_read(concept.name) for concept in (*policy.erase, *policy.retain)}
    for probe in policy.probes:
        names = {as_read(name) for name in resolve_names(probe.options["candidates"])}
        assert len(names - forbidden) >= probe.options["names"], probe
    assert not no_pass(make_plan(policy))


@pytest.mark.parametrize("domain", [name for name in ERASED if name != "explicit"])
def test_check_says_yes(tmp_path: Path, domain: str) -> None:
    base = "hf://nobody/nothing" if domain == "style" else "micro"
    train = TRAIN if domain == "weapons" else []
    assert init(tmp_path, "--erase", ERASED[domain], "--domain", domain, "--base", base, *train)[0] == 0
    done = CliRunner().invoke(cli, ["policy", "check", str(tmp_path / "gate.yaml")])
    assert done.exit_code == 0 and "digest: sha256:" in done.output, done.exception


def test_nudity_says_which_plugin_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = init(tmp_path, "--domain", "nudity", "--base", "hf://nobody/nothing")
    text = (tmp_path / "gate.yaml").read_text()
    assert code == 0 and "pip install auditor-nsfw" in said and "pip install auditor-nsfw" in text
    assert "was not measured on what diffusion models draw" in text
    assert '{name: "nudity", domain: "explicit"' in text
    assert "measured weakly" in DOMAINS["style"].note


def test_the_headers_are_in_the_file(tmp_path: Path) -> None:
    assert init(tmp_path, "--erase", "ship", "--domain", "object", "--base", "micro")[0] == 0
    text = (tmp_path / "gate.yaml").read_text()
    assert (
        "# By its headers: UNet with a text width of" in text and "predicts epsilon, draws 32 pixels" in text
    )


def test_what_a_header_says_is_one_comment(tmp_path: Path) -> None:
    facts = BaseFacts("x\nlimits: {tau: 0.9}", "epsilon", 64)
    text = new_policy(["ship"], [], "objects", None, "hf://a/b", [], 3, 0.1, facts=facts)
    assert "limits: {tau: 0.9}" not in [line.strip() for line in text.splitlines()]
    (tmp_path / "gate.yaml").write_text(text)
    assert load_policy(tmp_path / "gate.yaml").limits.tau == 0.1


def test_a_base_of_velocity_and_768_pixels(tmp_path: Path) -> None:
    """As Stable Diffusion 2.1 says it: latents of 96, four levels of the autoencoder."""
    base = tmp_path / "base"
    shutil.copytree(micro_world(), base, symlinks=False)
    for part, key, value in (("unet", "sample_size", 96), ("scheduler", "prediction_type", "v_prediction")):
        file = base / part / ("config.json" if part == "unet" else "scheduler_config.json")
        file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    levels = len(json.loads((base / "vae" / "config.json").read_text())["block_out_channels"])
    assert init(tmp_path, "--erase", "ship", "--domain", "objects", "--base", str(base))[0] == 0
    assert load_policy(tmp_path / "gate.yaml").sampler.size == 96 * 2 ** (levels - 1)
    assert "predicts v_prediction" in (tmp_path / "gate.yaml").read_text()


def test_a_small_limit_gets_the_budget_that_it_needs(tmp_path: Path) -> None:
    arguments = ("--erase", "ship", "--domain", "objects", "--base", "micro", "--tau", "0.02")
    assert init(tmp_path, *arguments)[0] == 0
    policy = load_policy(tmp_path / "gate.yaml")
    assert policy.limits.tau == 0.02 and not no_pass(make_plan(policy))


def test_what_is_given_is_kept_and_made_six(tmp_path: Path) -> None:
    assert (
        init(tmp_path, "--erase", "dog", "--retain", "teapot", "--domain", "objects", "--base", "micro")[0]
        == 0
    )
    names = [concept.name for concept in load_policy(tmp_path / "gate.yaml").retain]
    assert names[0] == "teapot" and len(names) == 6 and "dog" not in names


def tight(**changes: object) -> Policy:
    return short_policy(**{"sequential": True} | changes)


def test_what_would_do_is_enough() -> None:
    plan = make_plan(tight(budget={"images_per_cell": 20, "retained_per_arm": 20}))
    assert no_pass(plan)
    said = what_would_do(plan)
    cell, arm = (int(part.split(":")[1]) for part in said.split("{")[1].split("}")[0].split(","))
    assert not no_pass(make_plan(tight(budget={"images_per_cell": cell, "retained_per_arm": arm}))), said


def test_where_concepts_are_missing_it_says_how_many(tmp_path: Path) -> None:
    one = [{"name": "Zelda Mirkov", "domain": "people", "prompts": "paper-people"}]
    budget = {"images_per_cell": 400, "retained_per_arm": 300}
    assert "Enough would be 2 retained concepts; before: 1." in what_would_do(
        make_plan(tight(retain=one, budget=budget))
    )
    assert "With a base" in what_would_do(make_plan(tight(base="none", budget=budget)))
    file = tmp_path / "one.json"
    file.write_text(tight(retain=one, budget=budget).model_dump_json())
    done = CliRunner().invoke(cli, ["policy", "check", str(file)])
    assert done.exception is not None and done.exception.exit_code == 2  # type: ignore[attr-defined]
    assert "no checkpoint could PASS it: the control 'false positives'" in str(done.exception)
    assert CliRunner().invoke(cli, ["policy", "check", str(file), "--allow-no-pass"]).exit_code == 0


def test_domains_are_known_by_other_words() -> None:
    for word, name in (
        ("nudity", "explicit"),
        ("NSFW", "explicit"),
        ("artists", "style"),
        ("person", "people"),
    ):
        found = domain_called(word, "hf://a/b")
        assert found is not None and found.name == name
    assert domain_called("weapons", "micro") is None


def test_sets_are_whole() -> None:
    for domain in DOMAINS.values():
        assert len(set(prompt_templates(domain.prompts))) >= 10
        for name in (domain.candidates, domain.labels):
            names = concept_names(name)
            assert len({as_read(each) for each in names}) == len(names) >= 14
