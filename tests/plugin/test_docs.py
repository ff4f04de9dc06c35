"""The tutorial and the reference are executed, and a package goes from ``plugins new`` to a row in a
report."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

import auditor
from auditor._cli import cli
from auditor.plugin import _loader as loader
from auditor.plugin import hookspecs
from auditor.plugin._loader import add_file, load_plugins
from auditor.plugin.contracts import Probe
from tests.conftest import short_policy
from tests.faults.forks import Forks

pytestmark = pytest.mark.usefixtures("nano")

DOCS = Path(__file__).parents[2] / "docs"
reference = runpy.run_path(str(DOCS / "make_plugin_reference.py"))["reference"]
TUTORIAL = (DOCS / "plugins.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TUTORIAL, re.DOTALL)
SMALL = {"budget": {"images_per_cell": 5, "retained_per_arm": 10}, "synonyms": "report"}


def auditor_command(*arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
    """In a process of its own: it has plugins that were installed for it."""
    return subprocess.run(
        [sys.executable, "-m", "auditor", *arguments], capture_output=True, text=True, timeout=300, **more
    )  # type: ignore[call-overload,no-any-return]


def policy_with(probe: dict[str, object], folder: Path) -> Path:
    """The short policy with one more probe, as a file."""
    document = short_policy(**SMALL).model_dump(mode="json")
    document["probes"].append(probe)
    (folder / "policy.yaml").write_text(yaml.safe_dump(document))
    return folder / "policy.yaml"


def test_every_block_of_the_tutorial_runs() -> None:
    names: dict[str, object] = {"__name__": "tutorial"}
    for block in BLOCKS:
        exec(block, names)
    assert issubclass(names["Half"], Probe)  # type: ignore[arg-type]
    assert names["TestHalf"].plugin is names["Half"]  # type: ignore[attr-defined]


def test_every_command_of_the_tutorial_parses() -> None:
    lines = [line for line in TUTORIAL.splitlines() if line.startswith("auditor ")]
    assert len(lines) >= 3
    for line in lines:
        _, name, *arguments = shlex.split(line)
        command = cli.get_command(click.Context(cli), name)
        assert command is not None, line
        kept = [a for a in arguments if a not in ("--plugin", "half.py")]  # the file is not here
        command.make_context(name, kept)


def test_the_reference_is_that_of_this_version() -> None:
    """If not: ``python docs/make_plugin_reference.py > docs/plugin-reference.md``."""
    assert (DOCS / "plugin-reference.md").read_text(encoding="utf-8") == reference()


def test_every_hook_is_documented_and_used(tmp_path: Path, erased: Path) -> None:
    """The register hooks by what comes with auditor; the observers by a file that writes down what it is
    told."""
    hooks = {name for name in vars(hookspecs) if name.startswith("auditor_")}
    assert all(f"`{name}(" in reference() for name in hooks)
    kinds = {record.kind for record in load_plugins().records if record.distribution == "auditor"}
    assert {f"auditor_register_{kind}" for kind in kinds} | set(loader.OBSERVERS) == hooks
    log = tmp_path / "log.txt"
    body = (
        f"with open({str(log)!r}, 'a') as log:\n        log.write(f'{{name}} {{type(record).__name__}}\\n')"
    )
    functions = "\n".join(
        f"@hookimpl\ndef {name}(record, name={name!r}):\n    {body}" for name in loader.OBSERVERS
    )
    file = tmp_path / "watcher.py"
    file.write_text(f"from auditor.plugin import hookimpl\n{functions}\n")
    add_file(file)
    try:
        report = auditor.audit(str(erased), short_policy(**SMALL), tmp_path / "run", cache=tmp_path / "cache")
    finally:
        loader._files.clear()
        load_plugins.cache_clear()
    told = [line.split() for line in log.read_text().splitlines()]
    assert told[0] == ["auditor_run_started", "RunStarted"] and told[-1] == [
        "auditor_report_written",
        "ReportWritten",
    ]
    assert [name for name, _ in told].count("auditor_arm_ready") == 3
    assert ["auditor_batch_measured", "BatchMeasured"] in told
    assert any(origin.startswith("watcher.py sha256:") for origin in report.provenance.observers)


def test_a_file_of_fifteen_lines_is_a_row_in_a_report(forks: Forks, tmp_path: Path, erased: Path) -> None:
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 15
    (tmp_path / "half.py").write_text(BLOCKS[0])
    (probe,) = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", TUTORIAL, re.DOTALL)[0])["probes"]
    policy = policy_with(probe, tmp_path)
    command = [
        "audit",
        str(erased),
        "--policy",
        str(policy),
        "--plugin",
        str(tmp_path / "half.py"),
        "--out",
        str(tmp_path / "run"),
    ]
    done = forks.call(*command, "--cache", str(tmp_path / "cache"))
    assert done.returncode == 3, done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert {cell["arm"] for cell in report["cells"]} >= {"erased", "in-domain-lora", "half"}
    assert report["provenance"]["plugins"]["probes/half"].startswith("half.py sha256:")
    judged = forks.call("judge", str(tmp_path / "run"))  # needs no plugin: the manifest has its name
    assert judged.returncode == 3, judged.stderr


def test_from_plugins_new_to_a_row_in_a_report(forks: Forks, tmp_path: Path, erased: Path) -> None:
    """A package as the command writes it, with the tutorial's probe in it: built, installed, checked,
    tested, used."""
    package = tmp_path / "auditor-half"
    assert forks.call("plugins", "new", "probe", "half", "--out", str(package)).returncode == 0
    again = forks.call("plugins", "new", "probe", "half", "--out", str(package))
    assert again.returncode == 2 and "is there already" in again.stderr
    code = BLOCKS[0].replace("class Half(WeightProbe):", 'class Half(WeightProbe):\n    "Half."')
    (package / "src" / "auditor_half" / "__init__.py").write_text(code)
    site = tmp_path / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(site),
        str(package),
    ]
    subprocess.run(pip, check=True, capture_output=True)
    environment = os.environ | {
        "PYTHONPATH": f"{site}:{os.environ['PYTHONPATH']}",
        "AUDITOR_LOAD_PLUGINS": "auditor-half",
    }
    checked = auditor_command("plugins", "check", "auditor-half", env=environment)
    assert checked.returncode == 0 and "probe half: sound" in checked.stdout, checked.stderr
    pytest_command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(package)]
    tested = subprocess.run(pytest_command, capture_output=True, text=True, timeout=300, env=environment)
    assert tested.returncode == 0, tested.stdout
    policy = policy_with({"use": "half"}, tmp_path)
    command = [
        "audit",
        str(erased),
        "--policy",
        str(policy),
        "--out",
        str(tmp_path / "run"),
        "--cache",
        str(tmp_path / "cache"),
    ]
    done = auditor_command(*command, env=environment)
    assert done.returncode == 3, done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["provenance"]["plugins"]["probes/half"] == "auditor-half 0.1.0"
    assert any(cell["arm"] == "half" for cell in report["cells"])
    without = auditor_command(*command, env=environment | {"AUDITOR_LOAD_PLUGINS": "none"})
    assert without.returncode == 2 and "no probe called 'half'" in without.stderr


@pytest.mark.parametrize("kind", sorted(loader.SINGULAR.values()))
def test_what_is_written_for_each_kind_is_sound(forks: Forks, tmp_path: Path, kind: str) -> None:
    from auditor.testing.scaffold import write_package

    folder = write_package(kind, f"my-{kind}", tmp_path / kind)
    file = folder / "src" / f"auditor_my_{kind}" / "__init__.py"
    ast.parse((folder / "tests" / f"test_auditor_my_{kind}.py").read_text())
    checked = forks.call("plugins", "check", "__init__.py", "--plugin", str(file))
    assert checked.returncode == 0 and f"{kind} my-{kind}: sound" in checked.stdout, checked.stderr


def test_a_plugin_that_is_not_sound_is_said_to_be_so(forks: Forks, tmp_path: Path) -> None:
    (tmp_path / "dumb.py").write_text(
        "from auditor.plugin import hookimpl\nfrom auditor.plugin.contracts import OptionsModel, Probe\n"
        "class Options(OptionsModel):\n    x: int = 1\n"
        "class Dumb(Probe):\n    name, summary, Options = 'dumb', 'a probe', Options\n"
        "    def training_set(self, setting): return []\n    def update(self, update): yield from "
        "update.doses\n"
        "@hookimpl\ndef auditor_register_probes(): return [Dumb]\n"
    )
    checked = forks.call("plugins", "check", "dumb.py", "--plugin", str(tmp_path / "dumb.py"))
    assert checked.returncode == 5 and "the option 'x' has no documentation" in checked.stderr
    assert forks.call("plugins", "check", "nowhere").returncode == 2
    shown = forks.call("plugins", "show", "dumb", "--plugin", str(tmp_path / "dumb.py"), "--format", "json")
    assert json.loads(shown.stdout)[0]["options"]["properties"]["x"]["default"] == 1
