"""Studies are read strictly, and what they ask for is laid out before anything is measured."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from auditor._files.digest import sha256_tree
from auditor._study.expand import Expansion
from auditor._study.load import load_study
from auditor._study.run import ask, choose
from auditor._study.store import ArmRecord, Outcome, Store
from auditor.errors import PolicyError, UsageError

STUDIES = sorted(Path("examples/studies").glob("*/*.yaml"))
ASKED = [path for path in STUDIES if path.stem != "catalogue"]

CATALOGUE = """
version: 1
base: {source: micro}
sets:
  one: {images: 1, erase: [{names: [Borin Talvek], domain: people, mapping: a person, prompts: paper-people}]}
  two:
    images: 1
    erase: [{names: [Borin Talvek, Nuria Pellow], domain: people, mapping: a person, prompts: paper-people}]
retain: [{names: [Zelda Mirkov, Dorval Quint], domain: people, prompts: paper-people}]
erasers:
  esd:
    use: esd
    options:
      {variant: full, learning_rate: 1.0e-3, steps: 3, batch: 4, pool: 4, refresh: 3, sampling_steps: 4,
       size: 32}
probes:
  in-domain:
    use: in-domain
    methods: {lora: {learning_rate: 1.0e-3}, full: {learning_rate: 1.0e-4}}
    doses: [3]
    options: {names: 2, batch: 4, images_per_prompt: 1}
    domains: {people: {candidates: micro-people-random, prompts: paper-people}}
sampler: {scheduler: dpm-solver++, steps: 5, guidance: 4.0, size: 32}
detectors: [{use: clip-zero-shot, options: {model: micro, labels: micro-all, templates: erasure-templates}}]
"""

STUDY = """
version: 1
from: catalogue.yaml
title: a small one
sets: [one, two]
erasers: [esd]
probes: [in-domain]
methods: [lora]
replicates: 2
figures:
  - name: figure
    title: one and two
    bars: [{label: one, set: one}, {label: two, set: two}]
    claims: [{says: It grows., test: rises}]
"""


def written(folder: Path, study: str = STUDY, catalogue: str = CATALOGUE) -> Path:
    """A study and its catalogue on disk."""
    (folder / "catalogue.yaml").write_text(catalogue)
    path = folder / "study.yaml"
    path.write_text(study)
    return path


def expanded(path: Path) -> Expansion:
    return Expansion(load_study(path), "a base", "cpu")


@pytest.mark.parametrize("path", ASKED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_bundled_study_is_sound(path: Path) -> None:
    """It reads, its plugins take its options, its figures name arms that there are, and it cites its
    source."""
    asked = ask(path)
    assert asked.study.source
    for each in asked.whole:
        for figure in each.study.figures:
            for bar in figure.bars:
                names = [name for name, _ in each.study.uses(bar.set or next(iter(each.study.sets)))]
                assert bar.probe is None or bar.probe in names
                assert bar.probe is not None or len(names) == 1, (
                    f"{figure.name}: {bar.label} names no probe of {names}"
                )
        if each.path.parent.name == "micro":
            plan = Expansion(each.study, "a base", "cpu")
            assert plan.checkpoints(
                {(s, e): 0 for s in each.study.sets for e, use in each.study.erasers.items() if use.strengths}
            )


def test_a_probe_that_changes_no_weights_is_for_audits(tmp_path: Path) -> None:
    other = CATALOGUE.replace("    use: in-domain\n", "    use: sampling\n").replace(
        "{names: 2, batch: 4, images_per_prompt: 1}", "{steps: 9}"
    )
    other = other.replace("{lora: {learning_rate: 1.0e-3}, full: {learning_rate: 1.0e-4}}", "{lora: {}}")
    other = other.replace(
        "    domains: {people: {candidates: micro-people-random, prompts: paper-people}}\n", ""
    )
    with pytest.raises(PolicyError, match="The probe sampling changes no weights; a study measures those"):
        ask(written(tmp_path, catalogue=other))


def test_both_sizes_have_the_same_studies() -> None:
    micro, full = ({path.name for path in STUDIES if path.parent.name == size} for size in ("micro", "sd14"))
    assert micro == full


@pytest.mark.parametrize("name", [path.stem for path in ASKED if path.parent.name == "micro"])
def test_both_sizes_make_the_same_claims(name: str) -> None:
    one, two = (load_study(Path(f"examples/studies/{size}/{name}.yaml")) for size in ("micro", "sd14"))
    said = [
        [(figure.name, claim.says, claim.test) for figure in study.figures for claim in figure.claims]
        for study in (one, two)
    ]
    assert said[0] == said[1]
    assert one.source == two.source


def test_a_misspelt_key_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="did you mean 'replicates'"):
        load_study(written(tmp_path, STUDY.replace("replicates", "replicate")))


def test_a_mistake_in_the_catalogue_is_named_with_its_file_and_line(tmp_path: Path) -> None:
    line = (
        CATALOGUE.splitlines().index(
            "retain: [{names: [Zelda Mirkov, Dorval Quint], domain: people, prompts: paper-people}]"
        )
        + 1
    )
    with pytest.raises(
        PolicyError, match=rf"catalogue\.yaml:{line}: unknown key 'retian'; did you mean 'retain'"
    ):
        load_study(written(tmp_path, catalogue=CATALOGUE.replace("retain: [", "retian: [")))
    with pytest.raises(PolicyError, match=r"catalogue\.yaml:7: .*'sets\.two\.images'"):
        load_study(
            written(tmp_path, catalogue=CATALOGUE.replace("two:\n    images: 1", "two:\n    images: 0"))
        )


def test_a_mistake_in_the_study_is_not_laid_on_the_catalogue(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"study\.yaml:6: .*'erasers\.esd\.use' is missing"):
        load_study(
            written(tmp_path, STUDY.replace("erasers: [esd]", "erasers: {esd: {options: {variant: x}}}"))
        )
    with pytest.raises(PolicyError, match=r"study\.yaml:9: .*'detectors\.0\.use' is missing"):
        load_study(written(tmp_path, STUDY.replace("replicates: 2", "detectors: [{options: {}}]")))


def test_what_the_catalogue_has_not_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"'sets' names 'three'.*one, two"):
        load_study(written(tmp_path, STUDY.replace("[one, two]", "[one, three]", 1)))


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("set: two", "set: three", "no set is called 'three'"),
        ("test: rises", "test: above", "needs two 'groups'"),
        ("test: rises", "test: rises, bars: [one, three]", "the figure has one, two"),
        ("label: two", "label: one", "stands twice"),
        ("sets: [one, two]", "sets: []", "needs 'sets'"),
        ("erasers: [esd]", "erasers: {esd: {use: esd, strengths: [{steps: 1}]}}", "no 'match'"),
        ("replicates: 2", "metrics: [{use: clip-score}, {use: clip-score}]", "a metric stands twice"),
        (
            "replicates: 2",
            "detectors: [{use: clip-zero-shot}, {use: clip-zero-shot}]",
            "a detector stands twice",
        ),
        ("set: two", "set: two, probe: out-of-domain-lora", "its 'probe' is one of in-domain-lora"),
        ("set: two", "set: two, dose: 4", "its 'dose' is one of 3"),
        ("test: rises", "test: rises, measure: fid", "nothing called 'fid' is measured"),
        (
            "bars: [{label: one, set: one}, {label: two, set: two}]",
            "bars: [{label: one, set: one}]",
            "compares bars, and there is one",
        ),
    ],
)
def test_a_study_that_contradicts_itself_is_refused(
    tmp_path: Path, before: str, after: str, said: str
) -> None:
    with pytest.raises(PolicyError, match=said):
        load_study(written(tmp_path, STUDY.replace(before, after, 1)))


def test_aliases_are_refused_in_catalogues_too(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="aliases"):
        load_study(written(tmp_path, catalogue=CATALOGUE + "images: &x {erased: 1}\nseed: *x\n"))


def test_a_study_needs_no_catalogue(tmp_path: Path) -> None:
    whole = yaml.safe_load(CATALOGUE) | yaml.safe_load(STUDY)
    del whole["from"]
    for key in ("sets", "erasers", "probes"):
        whole[key] = yaml.safe_load(CATALOGUE)[key]
    path = tmp_path / "whole.yaml"
    path.write_text(yaml.safe_dump(whole))
    assert load_study(path) == load_study(written(tmp_path))


def test_a_missing_study_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Cannot read"):
        ask(tmp_path / "none.yaml")


def test_neither_arm_nor_set_is_in_an_image_seed(tmp_path: Path) -> None:
    plan = expanded(written(tmp_path))
    one, two = ({(s.prompt, s.index): s.seed for s in plan.samples(name)} for name in ("one", "two"))
    assert one.items() <= two.items()
    own = [sample.seed for sample in plan.samples("two") if sample.role != "grid"]
    assert len(set(own)) == len(own)


def test_the_grid_is_drawn_at_seed_0(tmp_path: Path) -> None:
    grid = [sample for sample in expanded(written(tmp_path)).samples("two") if sample.role == "grid"]
    assert [(sample.concept, sample.seed) for sample in grid] == [("Borin Talvek", 0), ("Nuria Pellow", 0)]


def test_what_is_the_same_is_the_same_whatever_it_is_called(tmp_path: Path) -> None:
    """Another study's names, claims and other sets change no identity; another seed, option or concept
    does."""
    plan = expanded(written(tmp_path))
    first = plan.checkpoints({})[0]

    def other(study: str = STUDY, catalogue: str = CATALOGUE) -> Expansion:
        return expanded(written(tmp_path, study, catalogue))

    renamed = other(
        STUDY.replace("one", "uno").replace("a small uno", "x"), CATALOGUE.replace("one:", "uno:")
    )
    assert renamed.checkpoints({})[0].key == first.key
    assert [a.key for _, doses in renamed.probe_arms(renamed.checkpoints({})[0]).values() for a in doses] == [
        a.key for _, doses in plan.probe_arms(first).values() for a in doses
    ]
    for changed in (
        other(catalogue=CATALOGUE.replace("steps: 3", "steps: 4")),
        other(catalogue=CATALOGUE.replace("mapping: a person", "mapping: an object")),
        other(catalogue=CATALOGUE.replace("[Zelda Mirkov, Dorval Quint]", "[Zelda Mirkov]")),
    ):
        assert changed.checkpoints({})[0].key != first.key
    assert len({erased.key for erased in plan.checkpoints({})}) == 4
    reseeded = other(STUDY + "seed: 1\n")
    assert reseeded.samples("one")[0].seed != plan.samples("one")[0].seed
    assert not {erased.key for erased in reseeded.checkpoints({})} & {
        erased.key for erased in plan.checkpoints({})
    }


def keys(plan: Expansion) -> tuple[list[str], list[str]]:
    """Of a study's first probed arm: identities of what is made (checkpoint, arm), and of what is said of
    it (erased, probed)."""
    erased = plan.checkpoints({})[0]
    ((_, (arm,)),) = plan.probe_arms(erased).values()
    return [erased.key, arm.key], [plan.record_key(plan.erased_arm(erased)), plan.record_key(arm)]


def test_a_file_behind_an_option_is_part_of_what_is_made(tmp_path: Path) -> None:
    """Captions, masks, folders, weights: the same path with other content is something else."""
    folder, found = tmp_path / "mine", []
    folder.mkdir()
    catalogue = CATALOGUE.replace(
        "people: {candidates: micro-people-random, prompts: paper-people}", f"people: {{folder: {folder}}}"
    )
    for content in ("a", "b", "a"):
        (folder / "metadata.jsonl").write_text(content)
        found.append(keys(expanded(written(tmp_path, catalogue=catalogue)))[0])
    assert found[0] == found[2] != found[1] and found[0][0] == found[1][0]
    plan = expanded(written(tmp_path, catalogue=catalogue))
    use = plan.study.uses("one")[0][1]
    keys(plan)
    plan.check_files("probes", use.use, use.options)
    (folder / "metadata.jsonl").write_text("c")
    with pytest.raises(UsageError, match="was changed while the study was at work"):
        plan.check_files("probes", use.use, use.options)


def test_folders_are_read_through_links_and_whatever_their_files_are_called(tmp_path: Path) -> None:
    folder, other = tmp_path / "masks", tmp_path / "elsewhere"
    for each in (folder, other):
        each.mkdir()
    (folder / "linked").symlink_to(other)
    (other / "back").symlink_to(folder)
    found = [sha256_tree(folder)]
    for path in (other / "00.png", folder / os.fsdecode(b"caf\xe9.png")):
        path.write_bytes(b"1")
        found.append(sha256_tree(folder))
    (other / "00.png").write_bytes(b"2")
    assert len({*found, sha256_tree(folder)}) == 4
    assert sha256_tree(tmp_path / "none") == ""


def test_a_strength_that_destroys_the_model_is_not_chosen_by_what_it_left(tmp_path: Path) -> None:
    """Two good images of many blank ones are no rate: where too many are missing there is no estimate, and
    no strength is chosen by it."""
    strengths = "erasers: {esd: {use: esd, strengths: [{steps: 1}, {steps: 2}]}}"
    plan = expanded(
        written(
            tmp_path, STUDY.replace("erasers: [esd]", strengths) + "match: {detected: 0.05, retained: 0.9}\n"
        )
    )
    store = Store(tmp_path / "store")
    for erased in plan.candidates():
        samples = plan.samples(erased.set)
        first = next(row for row, sample in enumerate(samples) if sample.role == "retained")
        dead = [
            Outcome(hits={"d": True}) if row == first else Outcome(flaw="blank")
            for row in range(len(samples))
        ]
        sound = [Outcome(hits={"d": sample.role == "retained" and sample.index == 0}) for sample in samples]
        if erased.strength == 0:
            dead[0] = Outcome(hits={"d": False})
        outcomes = dead if erased.strength == 0 else sound
        store.write(plan.record_key(plan.erased_arm(erased)), ArmRecord(outcomes=tuple(outcomes)))
    assert choose(plan, store) == {("one", "esd"): 1, ("two", "esd"): 1}


def test_the_screening_limit_is_part_of_what_is_said_and_not_of_what_is_made(tmp_path: Path) -> None:
    one, two = (
        keys(expanded(written(tmp_path, STUDY + f"max_false_positive: {limit}\n"))) for limit in (0.05, 0.01)
    )
    assert one[0] == two[0] and one[1][0] == two[1][0] and one[1][1] != two[1][1]


def test_options_follow_method_and_domain(tmp_path: Path) -> None:
    study = load_study(
        written(
            tmp_path, yaml.safe_dump(yaml.safe_load(STUDY) | {"methods": ["lora", "full"], "figures": []})
        )
    )
    uses = dict(study.uses("one"))
    assert {name: use.options["learning_rate"] for name, use in uses.items()} == {
        "in-domain-lora": 1e-3,
        "in-domain-full": 1e-4,
    }
    assert uses["in-domain-full"].options["candidates"] == "micro-people-random"
