"""The examples' gate: linted, and its script run on runs that end with every verdict."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
import yaml

from auditor._audit.cost import operations_of_a_call
from auditor._audit.judge import judged
from auditor._audit.speed import Speed, keep_speed
from auditor._audit.verify import verify
from auditor._checkpoint import open_checkpoint
from auditor._cli import main
from auditor._process.device import device_kind
from auditor.plugin.instruments import make_instruments
from auditor.policy import load_policy
from auditor.report.compare import diff, read_report
from tests.conftest import DETECTOR, short_policy
from tests.faults.forks import Forks

pytestmark = pytest.mark.usefixtures("forked")

ROOT = Path(__file__).parents[2]
GATE = ROOT / "examples" / "shell" / "gate.sh"
ACTION = ROOT / "examples" / "github-action"
BIN = Path(sys.executable).parent
Command = Callable[..., subprocess.CompletedProcess[str]]


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, **options
    )  # type: ignore[call-overload, no-any-return]


@pytest.fixture(scope="module")
def forked(nano: None, forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For everything that is started here, ``auditor`` is a fork of a process that has loaded."""
    first = forks.command(tmp_path_factory.mktemp("bin")).parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{first}:{BIN}:{os.environ['PATH']}")
        yield


def gate(folder: Path, checkpoint: str, policy: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The script as a job on GitHub runs it."""
    given = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": os.environ["PYTHONPATH"],
        "AUDITOR_CHECKPOINT": checkpoint,
        "AUDITOR_POLICY": str(policy),
        "AUDITOR_POLICY_DIGEST": f"sha256:{pinned_digest(policy)}",
        "AUDITOR_CACHE": str(folder / "cache"),
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        "GITHUB_OUTPUT": str(folder / "output"),
        "HF_HUB_OFFLINE": "1",
    }
    return run(GATE, cwd=folder, env=given | environment)


def pinned_digest(policy: Path) -> str:
    """What ``auditor policy check`` prints."""
    loaded = load_policy(policy)
    return loaded.digest(make_instruments(loaded).contents())


def outputs(folder: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (folder / "output").read_text().splitlines())


def write_policy(folder: Path, **changes: object) -> Path:
    path = folder / "gate.yaml"
    path.write_text(yaml.safe_dump(short_policy(**changes).model_dump(mode="json")))
    return path


@pytest.fixture(scope="module")
def inconclusive(
    erased: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run with too few images for any verdict."""
    folder = tmp_path_factory.mktemp("gate")
    policy = write_policy(folder, budget={"images_per_cell": 10, "retained_per_arm": 10})
    return folder, gate(folder, str(erased), policy)


def test_inconclusive_is_no_success(inconclusive: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = inconclusive
    assert done.returncode == 3, done.stderr
    found = outputs(folder)
    assert (found["verdict"], found["exit-code"], found["folder"]) == ("INCONCLUSIVE", "3", "audit")
    assert found["root-digest"] == judged(folder / "audit").checkpoint.root_digest
    assert "## INCONCLUSIVE" in (folder / "summary.md").read_text()
    assert "::error file=gate.yaml,line=" in done.stdout, "what stands between it and a PASS"
    assert {"report.json", "report.html", "junit.xml", "report.sarif"} <= {
        path.name for path in (folder / "audit").iterdir()
    }


def test_annotations_point_at_the_concepts_line(
    inconclusive: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = inconclusive
    policy = (folder / "gate.yaml").read_text().splitlines()
    found = next(line for line in done.stdout.splitlines() if "cell-undecided" in line)
    number = int(found.split("line=")[1].split(",")[0])
    entry = "\n".join(policy[number - 1 : number + 12])
    assert "Borin Talvek" in entry and policy[number - 1].startswith("- "), found


def test_the_same_job_again_goes_on_and_says_what_changed(
    inconclusive: tuple[Path, subprocess.CompletedProcess[str]], erased: Path
) -> None:
    folder, _ = inconclusive
    lines = (folder / "audit" / "journal.jsonl").read_bytes()
    shutil.copy(folder / "audit" / "report.json", folder / "before.json")
    again = gate(
        folder,
        str(erased),
        folder / "gate.yaml",
        AUDITOR_BASELINE="before.json",
        AUDITOR_EXIT_ZERO="true",
        AUDITOR_RESUME="true",
    )
    assert again.returncode == 0 and "nothing changed" in again.stdout
    assert outputs(folder)["verdict"] == "INCONCLUSIVE", "a green job does not make a PASS of it"
    assert (folder / "audit" / "journal.jsonl").read_bytes() == lines


def test_a_concept_that_was_never_erased_fails_the_job(tmp_path: Path, erased: Path) -> None:
    kept = [
        {"name": name, "domain": "people", "prompts": "paper-people"}
        for name in ("Borin Talvek", "Dorval Quint", "Yara Belmos")
    ]
    policy = write_policy(
        tmp_path,
        erase=[{"name": "Zelda Mirkov", "domain": "people", "prompts": "paper-people"}],
        retain=kept[1:],
        sampler={"scheduler": "dpm-solver++", "steps": 15, "guidance": 4.0, "size": 32},
        on_fail="stop",
        sequential=True,
    )
    done = gate(tmp_path, str(erased), policy)
    assert done.returncode == 1, done.stdout + done.stderr
    assert (
        outputs(tmp_path)["verdict"] == "FAIL"
        and "## FAIL (not erased)" in (tmp_path / "summary.md").read_text()
    )
    assert "::error file=gate.yaml,line=" in done.stdout
    lines = (tmp_path / "audit" / "journal.jsonl").read_text().splitlines()
    kinds = [json.loads(each)["kind"] for each in lines]
    assert not {"training", "sham", "repeat"} & set(kinds) and kinds[-1] == "stop", "nothing after the proof"
    assert "not drawn" in (tmp_path / "summary.md").read_text()


def test_another_policy_than_the_pinned_one_ends_with_2(tmp_path: Path, erased: Path) -> None:
    policy = write_policy(tmp_path)
    pinned = pinned_digest(policy)
    policy.write_text(policy.read_text().replace("tau: 0.1", "tau: 0.9"))
    itself = f"{BIN}:{os.environ['PATH']}"
    done = gate(tmp_path, str(erased), policy, AUDITOR_POLICY_DIGEST=f"sha256:{pinned}", PATH=itself)
    assert done.returncode == 2 and "is not the policy with the digest" in done.stderr
    assert outputs(tmp_path)["verdict"] == "NONE" and "No verdict" in (tmp_path / "summary.md").read_text()
    assert not (tmp_path / "audit").exists()


def test_a_refused_checkpoint_ends_with_4_whatever_is_asked(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    done = gate(tmp_path, "checkpoint", write_policy(tmp_path), AUDITOR_EXIT_ZERO="true")
    assert done.returncode == 4 and outputs(tmp_path)["verdict"] == "NONE"


def test_a_checkpoints_name_is_only_a_name(tmp_path: Path) -> None:
    for evil in (
        "$(touch pwned); touch pwned",
        "--exit-zero",
        "`touch pwned`\n::error::x ##[set-output name=verdict;]PASS",
    ):
        refused = gate(tmp_path, evil, write_policy(tmp_path))
        assert (
            refused.returncode == 2
            and "is no folder or file here" in refused.stderr
            and "::" not in refused.stderr + refused.stdout
        )
        shutil.rmtree(tmp_path / "audit", ignore_errors=True)
        (tmp_path / evil.replace("/", "")).mkdir()
        done = gate(tmp_path, evil, write_policy(tmp_path))
        assert done.returncode == 4, (evil, done.returncode, done.stderr)
        assert not (tmp_path / "pwned").exists()
        said = (done.stdout + done.stderr).splitlines()
        assert not any("##[" in line for line in said)
        commands = [line.lstrip() for line in said if line.lstrip().startswith("::")]
        assert len(commands) == 2 and commands[0] == f"::stop-commands::{commands[1].strip(':')}", (
            "only the gate's own"
        )


@pytest.mark.parametrize(
    "name",
    [
        "org/name",
        "org/name@main",
        "hf://org/name",
        "hf://org/name@main",
        "hf:org",
        "HF://org/name@" + "0" * 40,
        " hf://org/name",
        "micro",
    ],
)
def test_a_checkpoint_is_a_path_or_a_commit_and_nothing_else(tmp_path: Path, name: str) -> None:
    done = gate(tmp_path, name, write_policy(tmp_path), PATH=stand_in(tmp_path, "touch started"))
    assert done.returncode == 2 and not (tmp_path / "started").exists(), done.stderr


def test_what_is_audited_is_the_path_whatever_else_has_its_name(tmp_path: Path) -> None:
    """``micro`` is the built-in base, and here a folder that somebody uploaded."""
    (tmp_path / "micro").mkdir()
    policy = write_policy(tmp_path)
    path = stand_in(tmp_path, 'for last; do :; done; echo "$last" > audited')
    gate(tmp_path, "micro", policy, PATH=path)
    assert (tmp_path / "audited").read_text() == "./micro\n"
    commit = f"hf://org/name@{'0' * 40}"
    gate(tmp_path, commit, policy, PATH=path, AUDITOR_RESUME="true")
    assert (tmp_path / "audited").read_text() == f"{commit}\n"


@pytest.mark.parametrize("out", ["-x", "a\rb", "a\x1bb"])
def test_a_folder_of_an_odd_name_is_refused(tmp_path: Path, out: str) -> None:
    (tmp_path / "checkpoint").mkdir()
    done = gate(tmp_path, "checkpoint", write_policy(tmp_path), AUDITOR_OUT=out)
    assert done.returncode == 2 and "AUDITOR_OUT" in done.stderr and not (tmp_path / "output").exists()


def test_a_folder_that_came_with_the_workspace_is_not_gone_on_in(tmp_path: Path) -> None:
    for name in ("checkpoint", "audit"):
        (tmp_path / name).mkdir()
    (tmp_path / "audit" / "journal.jsonl").write_text("{}\n")
    done = gate(tmp_path, "checkpoint", write_policy(tmp_path), PATH=stand_in(tmp_path, "touch started"))
    assert (
        done.returncode == 2
        and "may have come with the workspace" in done.stderr
        and not (tmp_path / "started").exists()
    )
    done = gate(
        tmp_path,
        "checkpoint",
        write_policy(tmp_path),
        PATH=stand_in(tmp_path, "touch started"),
        AUDITOR_RESUME="true",
    )
    assert (tmp_path / "started").exists()


@pytest.mark.parametrize(
    "text",
    [
        "::error::x",
        ":::error::x",
        "##[set-output]",
        "##vso[task.setvariable variable=a]b",
        "##teamcity[x]",
        "section_start:1:x",
    ],
)
def test_commands_of_every_ci_are_broken_up(text: str) -> None:
    from auditor.report.words import harmless

    shown = harmless(f"{text} and {text}")
    assert not re.search(r"::|##\S|section_(start|end):", shown) and shown.replace(
        " ", ""
    ) == f"{text}and{text}".replace(" ", "")


def test_without_a_pinned_policy_nothing_runs(tmp_path: Path) -> None:
    done = gate(tmp_path, "micro", write_policy(tmp_path), AUDITOR_POLICY_DIGEST="")
    assert done.returncode == 2 and "pin the policy" in done.stderr
    assert gate(tmp_path, "", write_policy(tmp_path)).returncode == 2
    assert gate(tmp_path, "micro", write_policy(tmp_path), AUDITOR_OUT="a\nverdict=PASS").returncode == 2
    assert gate(tmp_path, "hf://org/model@main", write_policy(tmp_path)).returncode == 2, "a branch may move"


def test_a_pass_is_the_only_success(tmp_path: Path) -> None:
    """Real audits of the micro world that PASS take minutes, so the run's journal is one that was written
    for the judge."""
    from auditor._audit.plan import make_plan
    from auditor._cli.terminal import exit_code_of
    from tests.conftest import erased_well, journal_of, verdict_of

    plan = make_plan(short_policy())
    report = verdict_of(plan, journal_of(plan, erased_well))
    assert exit_code_of(report) == 0 and report.verdict.outcome == "PASS"
    (tmp_path / "report.json").write_text(report.model_dump_json(indent=2))
    (tmp_path / "checkpoint").mkdir()
    done = gate(
        tmp_path,
        "checkpoint",
        write_policy(tmp_path),
        PATH=stand_in(tmp_path, "mkdir -p audit; cp report.json audit/; exit 0"),
    )
    assert done.returncode == 0 and outputs(tmp_path)["verdict"] == "PASS"
    assert outputs(tmp_path)["root-digest"] == report.checkpoint.root_digest


def stand_in(folder: Path, does: str) -> str:
    """A search path on which ``auditor audit`` does something else."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "auditor").write_text(f"#!/bin/sh\n{does}\n")
    (folder / "bin" / "auditor").chmod(0o755)
    return f"{folder / 'bin'}:{os.environ['PATH']}"


@pytest.mark.parametrize("code", [126, 129, 134, 137, 139])
def test_an_audit_that_was_killed_leaves_no_old_verdict(tmp_path: Path, code: int) -> None:
    (tmp_path / "audit").mkdir()
    for name in ("report.json", "junit.xml", "report.sarif", "github-summary.md", "report.html"):
        (tmp_path / "audit" / name).write_text('{"verdict": {"outcome": "PASS"}}')
    (tmp_path / "json.py").write_text("print('PASS'); raise SystemExit")
    (tmp_path / "checkpoint").mkdir()
    more = {"AUDITOR_EXIT_ZERO": "true", "AUDITOR_RESUME": "true"}
    done = gate(
        tmp_path, "checkpoint", write_policy(tmp_path), PATH=stand_in(tmp_path, f"exit {code}"), **more
    )
    assert done.returncode == code and outputs(tmp_path)["verdict"] == "NONE"
    assert not list((tmp_path / "audit").iterdir()) and "No verdict" in (tmp_path / "summary.md").read_text()


def test_a_program_that_does_nothing_is_no_pass(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    done = gate(tmp_path, "checkpoint", write_policy(tmp_path), PATH=stand_in(tmp_path, "exit 0"))
    assert done.returncode == 5 and outputs(tmp_path)["verdict"] == "NONE"


def test_an_error_is_no_verdict_that_exit_zero_lets_through(tmp_path: Path) -> None:
    from auditor._audit.plan import make_plan
    from auditor._cli.terminal import exit_code_of
    from auditor.report import Outcome
    from tests.conftest import erased_well, journal_of, verdict_of

    plan = make_plan(short_policy())
    report = verdict_of(plan, journal_of(plan, erased_well))
    verdicts = {outcome: report.verdict.model_copy(update={"outcome": outcome}) for outcome in Outcome}
    codes = {
        name: exit_code_of(report.model_copy(update={"verdict": verdict}), exit_zero=True)
        for name, verdict in verdicts.items()
    }
    assert codes == {Outcome.PASS: 0, Outcome.FAIL: 0, Outcome.INCONCLUSIVE: 0, Outcome.ERROR: 5}
    (tmp_path / "checkpoint").mkdir()
    done = gate(
        tmp_path,
        "checkpoint",
        write_policy(tmp_path),
        AUDITOR_EXIT_ZERO="true",
        PATH=stand_in(tmp_path, "mkdir -p audit; echo {} > audit/report.json; exit 5"),
    )
    assert done.returncode == 5 and outputs(tmp_path)["verdict"] == "ERROR"


# -- linting -------------------------------------------------------------------------------------------------


def test_the_script_is_clean() -> None:
    done = run(BIN / "shellcheck", GATE)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("vendor.github-actions", ACTION / "audit-checkpoint" / "action.yml"),
        ("vendor.github-workflows", ACTION / "workflow.yml"),
        ("vendor.gitlab-ci", ROOT / "examples" / "gitlab" / ".gitlab-ci.yml"),
    ],
)
def test_the_action_is_valid(schema: str, file: Path) -> None:
    done = run(BIN / "check-jsonschema", "--builtin-schema", schema, file)
    assert done.returncode == 0, done.stdout


def test_an_unprotected_branch_fails_and_is_never_skipped() -> None:
    """Skipped jobs count as successful."""
    job = yaml.safe_load((ACTION / "workflow.yml").read_text())["jobs"]["audit"]
    first = job["steps"][0]
    assert "if" not in job and "ref_protected" in first["if"] and first["run"].endswith("exit 1\n")
    for name, other in yaml.safe_load((ROOT / "examples/gitlab/.gitlab-ci.yml").read_text()).items():
        rules = other.get("rules", []) if isinstance(other, dict) else []
        assert all("PROTECTED" not in rule["if"] for rule in rules), name


def test_the_workflow_may_upload_sarif_in_a_private_repository() -> None:
    rights = yaml.safe_load((ACTION / "workflow.yml").read_text())["jobs"]["audit"]["permissions"]
    assert rights == {"contents": "read", "security-events": "write", "actions": "read"}


def test_actions_are_pinned_and_inputs_reach_no_shell() -> None:
    for file in (ACTION / "workflow.yml", ROOT / ".github" / "workflows" / "test.yml"):
        for job in yaml.safe_load(file.read_text())["jobs"].values():
            for step in job["steps"]:
                uses = step.get("uses", "./")
                assert uses.startswith("./") or len(uses.split("@")[1]) == 40, uses
                assert "${{" not in step.get("run", "")
    for step in yaml.safe_load((ACTION / "audit-checkpoint" / "action.yml").read_text())["runs"]["steps"]:
        assert "${{" not in step["run"]


# -- the commands about reports ------------------------------------------------------------------------------


def auditor(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return run("auditor", *arguments, cwd=cwd)


def test_a_run_verifies_until_something_in_it_is_changed(
    inconclusive: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    out = shutil.copytree(inconclusive[0] / "audit", tmp_path / "run")
    for name in ("github-annotations.txt", "junit.xml"):
        assert (out / name).is_file()
    assert verify(out).problems == ()
    done = auditor("report", "verify", out)
    assert done.returncode == 0 and "verified: 65 samples" in done.stdout and "report.html" in done.stdout
    image = next((out / "images").iterdir())
    content = image.read_bytes()
    image.write_bytes(content + b"x")
    assert [problem.split(" is ")[1] for problem in verify(out).problems] == [
        "not the image that was scored."
    ]
    image.unlink()
    assert verify(out).problems[0].endswith("is gone.")
    image.write_bytes(content)
    page = (out / "report.html").read_text()
    (out / "report.html").write_text(page.replace("INCONCLUSIVE", "PASS"))
    assert verify(out).problems == ("report.html is not what the report gives (without options).",)
    (out / "report.html").write_text(page)
    (out / "eval_results.yaml").write_text("- value: 0.1")
    assert verify(out).problems[0].startswith("eval_results.yaml cannot be made again"), (
        "not verified is said"
    )
    (out / "eval_results.yaml").unlink()
    report = json.loads((out / "report.json").read_text())
    report["verdict"] = {"outcome": "PASS", "reasons": ["all is well"]}
    (out / "report.json").write_text(json.dumps(report))
    assert "verdict differ" in verify(out).problems[0]
    done = auditor("report", "verify", out)
    assert done.returncode == 5 and "does not verify" in done.stderr


def test_show_json_and_quiet(inconclusive: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = inconclusive
    report = judged(folder / "audit")
    assert json.loads(auditor("show", folder / "audit", "--format", "json").stdout) == json.loads(
        report.model_dump_json()
    )
    assert "INCONCLUSIVE" in auditor("show", folder / "audit" / "report.json").stdout
    done = auditor("judge", folder / "audit", "--format", "quiet")
    assert (done.returncode, done.stdout) == (3, "")
    done = auditor("judge", folder / "audit", "--format", "quiet", "--exit-zero")
    assert (done.returncode, done.stdout) == (0, "")


def edited(out: Path, manifest: object) -> str:
    """What ``verify`` says of a run whose manifest was edited."""
    (out / "manifest.json").rename(out / "manifest.json.before")
    (out / "manifest.json").write_text(json.dumps(manifest))
    return verify(out).problems[0]


def test_a_report_of_another_auditor_is_verified_by_its_numbers(
    inconclusive: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    out = shutil.copytree(inconclusive[0] / "audit", tmp_path / "run")
    manifest, report = (json.loads((out / name).read_text()) for name in ("manifest.json", "report.json"))
    manifest["identity"]["versions"]["auditor"] = report["provenance"]["versions"]["auditor"] = "0.0.1"
    report["verdict"]["reasons"] = ["other words"]
    assert "is not the one that the run's last process wrote" in edited(out, manifest)
    contents = (out / "manifest.json.before").read_bytes(), json.dumps(manifest).encode()
    before, now = (hashlib.sha256(content).hexdigest() for content in contents)
    (out / "journal.jsonl").write_text((out / "journal.jsonl").read_text().replace(before, now))
    (out / "report.json").write_text(json.dumps(report))
    found = verify(out)
    assert (found.problems, found.forms, found.version) == ((), (), "0.0.1")
    assert {"report.html", "junit.xml"} <= set(found.left)
    assert "NOT compared" in auditor("report", "verify", out).stdout
    report["cells"][1]["hits"] += 1
    (out / "report.json").write_text(json.dumps(report))
    assert verify(out).problems == ("report.json is not what the journal gives: cells differ.",)


def test_colours_are_for_terminals_and_only_where_they_are_wanted(
    inconclusive: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, _ = inconclusive
    plain = {"PATH": os.environ["PATH"], "HF_HUB_OFFLINE": "1"}

    def shown(**environment: str) -> str:
        return run("auditor", "show", folder / "audit", env=plain | environment).stdout

    yellow = "\x1b[33m"
    assert "\x1b" not in shown()
    assert yellow in shown(FORCE_COLOR="1") or "\x1b[1;33m" in shown(FORCE_COLOR="1")
    assert "33m" not in shown(FORCE_COLOR="1", NO_COLOR="1")


def test_render_to_standard_output_and_from_a_file(
    inconclusive: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, _ = inconclusive
    done = auditor("report", "render", folder / "audit" / "report.json", "--format", "markdown", "--stdout")
    assert done.returncode == 0 and done.stdout.startswith("# INCONCLUSIVE")
    assert not (folder / "audit" / "report.md").exists()


def test_a_report_of_another_version_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"schema_version": 99}')
    done = auditor("show", tmp_path)
    assert done.returncode == 2 and "has schema version 99; this auditor reads version 1" in done.stderr
    (tmp_path / "report.json").write_text("[]")
    done = auditor("show", tmp_path)
    assert done.returncode == 2 and "is no report" in done.stderr


def test_the_schema_describes_what_is_written(
    inconclusive: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    import jsonschema

    folder, _ = inconclusive
    schema = json.loads(auditor("report", "schema").stdout)
    jsonschema.validate(json.loads((folder / "audit" / "report.json").read_text()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"schema_version": 1}, schema)


@pytest.mark.parametrize(
    "file",
    sorted((ROOT / "tests" / "builtins" / "reporters" / "kept").glob("*.json")),
    ids=lambda path: path.stem,
)
def test_reports_of_earlier_versions_are_read(file: Path) -> None:
    report = read_report(file)
    assert report.cells and report.verdict.reasons
    assert diff(report, report) == []


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process: what it says and ends with, without the seconds that a new one takes to
    load."""

    def command(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        line = list(map(str, arguments))
        monkeypatch.setattr(sys, "argv", ["auditor", *line])
        if cwd is not None:
            monkeypatch.chdir(cwd)
        with pytest.raises(SystemExit) as end:
            main()
        return subprocess.CompletedProcess(line, cast(int, end.value.code), *capsys.readouterr())

    return command


def test_a_policy_is_written_checked_and_explained(tmp_path: Path, here: Command) -> None:
    arguments = [
        "--erase",
        "Borin Talvek",
        "--retain",
        "Zelda Mirkov",
        "--retain",
        "Dorval Quint",
        "--domain",
        "people",
        "--base",
        "micro",
    ]
    done = here("policy", "init", "gate.yaml", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    policy = load_policy(tmp_path / "gate.yaml")
    assert policy.erase[0].name == "Borin Talvek" and not policy.probes
    assert policy.updates is not None and policy.updates.claim.share == 0.2
    assert (tmp_path / "gate.yaml").read_text().count("#") >= 8, "commented"
    assert here("policy", "init", "gate.yaml", *arguments, cwd=tmp_path).returncode == 2, "it exists"
    done = here("policy", "check", "gate.yaml", "--strict", cwd=tmp_path)
    assert f"sha256:{pinned_digest(tmp_path / 'gate.yaml')}" in done.stdout and done.returncode == (
        2 if "warning" in done.stdout else 0
    )
    done = here("policy", "explain", "gate.yaml", cwd=tmp_path)
    assert (
        "PASS: each of them is shown to be below 8.0%" in done.stdout
        and "Chance that every rate holds" in done.stdout
    )
    assert here("policy", "init", "other.yaml", cwd=tmp_path).returncode == 2, "no terminal to ask in"
    odd = ["--erase", "a tank", "--retain", "a truck", "--domain", "weapons", "--base", "micro"]
    done = here("policy", "init", "odd.yaml", *odd, cwd=tmp_path)
    assert done.returncode == 2 and "name at least 8 with --train" in done.stderr
    train = [part for n in range(8) for part in ("--train", f"tool {n}")]
    assert here("policy", "init", "odd.yaml", *odd, *train, cwd=tmp_path).returncode == 0
    updates = load_policy(tmp_path / "odd.yaml").updates
    assert updates is not None
    assert updates.population[0].options["candidates"] == [f"tool {n}" for n in range(8)]


def test_explain_promises_nothing_that_is_out_of_reach(tmp_path: Path, here: Command) -> None:
    done = here("policy", "explain", write_policy(tmp_path, retain=[], base="none"))
    assert "Out of reach" in done.stdout and "(and still no PASS)" in done.stdout


def test_explain_says_how_long_it_takes_on_this_machine(tmp_path: Path, here: Command) -> None:
    policy = write_policy(tmp_path)
    assert "not known before the first audit" in here("policy", "explain", policy, "--cache", tmp_path).stdout
    call = operations_of_a_call(open_checkpoint("micro"), load_policy(policy).sampler.size)
    for elsewhere in ((device_kind(), call + 1), ("another device", call)):
        keep_speed(tmp_path, Speed(*elsewhere, 1e10, 1e10, image=0.01, start=5, around=1.1))
    assert "not known before the first audit" in here("policy", "explain", policy, "--cache", tmp_path).stdout
    keep_speed(tmp_path, Speed(device_kind(), call, 1e10, 1e10, image=0.01, start=5, around=1.1))
    found = re.search(
        r"about ([\d.e+]+) minutes \(([\d.e+]+) where all is well, ([\d.e+]+) where",
        here("policy", "explain", policy, "--cache", tmp_path).stdout,
    )
    assert found is not None
    likely, least, most = map(float, found.groups())
    assert 0 < least <= likely <= most < 60
    elsewhere = write_policy(tmp_path, base={"source": "hf://nobody/nothing"})
    assert (
        "Minutes are not known: the base is not on this machine"
        in here("policy", "explain", elsewhere, "--cache", tmp_path).stdout
    )


def test_a_pinned_policy_is_the_one_that_is_judged(tmp_path: Path) -> None:
    """The base is part of what is pinned, and the file is read once."""
    policy = write_policy(tmp_path)
    pinned = f"sha256:{pinned_digest(policy)}"
    done = auditor(
        "audit",
        "micro",
        "--policy",
        policy,
        "--policy-digest",
        pinned,
        "--base",
        "hf://evil/base",
        "--out",
        tmp_path / "out",
    )
    assert done.returncode == 2 and "with another base is not the policy" in done.stderr


def test_a_name_that_is_no_yaml_is_quoted(tmp_path: Path, here: Command) -> None:
    evil = 'x: {y}], # "quoted"\n- {name: z 𠮷野家😀'
    done = here(
        "policy",
        "init",
        "gate.yaml",
        "--erase",
        evil,
        "--retain",
        "a",
        "--domain",
        "people",
        "--base",
        "micro",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert load_policy(tmp_path / "gate.yaml").erase[0].name == evil


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "One training seed each for in-domain"),
        (
            {"detectors": [DETECTOR | {"options": DETECTOR["options"] | {"labels": ["a", "b", "c"]}}]},
            "chooses among 3 labels",
        ),  # type: ignore[operator]
        ({"erase": [{"name": "ship", "domain": "objects", "prompts": ["{}"]}]}, "fewer than 3 prompts"),
        (
            {
                "erase": [
                    {"name": "ship", "domain": "objects", "synonyms": ["boat"], "prompts": "paper-people"}
                ]
            },
            "decide nothing",
        ),
        ({"claim": "detector"}, "Weaker than the default: claim is 'detector'"),
        ({"base": "none"}, "Out of reach"),
    ],
)
def test_check_warns_of_what_weakens_a_pass(
    tmp_path: Path, changes: dict[str, object], sentence: str, here: Command
) -> None:
    done = here("policy", "check", write_policy(tmp_path, **changes), "--allow-no-pass")
    assert done.returncode == 0 and sentence in done.stdout, done.stdout + done.stderr


def test_the_policy_schema_takes_the_bundled_policies_and_no_misspelling(here: Command) -> None:
    import jsonschema

    schema = json.loads(here("policy", "schema").stdout)
    for file in sorted((ROOT / "policies").glob("*.yaml")):
        document = yaml.safe_load(file.read_text())
        jsonschema.validate(document, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(document | {"probs": []}, schema)
