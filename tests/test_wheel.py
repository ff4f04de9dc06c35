"""What is published works where it is installed: sdist, the wheel built from it, and a fresh environment
outside of the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

import pytest
import yaml

from auditor._files.bundled import bundled_names
from tests.faults.passing import document, gradients
from tests.nano import SITE

ROOT = Path(__file__).parents[1]
PLUGINS = sorted(path for path in (ROOT / "plugins").iterdir() if (path / "pyproject.toml").is_file())


class Installed:
    """An environment that holds the wheels and, beside them, the libraries of this one (but not this
    checkout)."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.work = folder, folder / "work"
        self.work.mkdir()
        built = folder / "dist"
        for project in (ROOT, *PLUGINS):
            self._call(sys.executable, "-m", "build", "--no-isolation", "--outdir", built, project)
        venv.create(folder / "env", with_pip=False)
        self.python = folder / "env" / "bin" / "python"
        beside = Path(sysconfig.get_path("purelib"))
        site = next((folder / "env" / "lib").glob("python*/site-packages"))
        # its own .pth files, and so this checkout, are not read
        (site / "beside.pth").write_text(f"{beside}\n")
        self._call(
            sys.executable,
            "-m",
            "pip",
            "--python",
            self.python,
            "install",
            "--no-deps",
            "--no-index",
            "-q",
            *built.glob("*.whl"),
        )

    def _call(self, *command: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=self.work,
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
            env=self.environment(**more),
        )
        return done

    def environment(self, **more: str) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "AUDITOR"))
        }
        own = {"HF_HUB_OFFLINE": "1", "AUDITOR_CACHE": str(self.folder / "cache"), "COLUMNS": "200"}
        return kept | own | more

    def auditor(self, *arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        return self._call(self.python, "-m", "auditor", *arguments, **more)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    found = Installed(tmp_path_factory.mktemp("wheel"))
    where = found._call(found.python, "-c", "import auditor; print(auditor.__file__)")
    assert str(found.folder) in where.stdout, where.stdout + where.stderr
    return found


def test_the_first_minute(installed: Installed) -> None:
    assert "Does an erased concept stay gone?" in installed.auditor("--help").stdout
    done = installed.auditor("plan", "micro", "--policy", "micro-person")
    assert done.returncode == 0 and "checks decide" in done.stdout, done.stderr
    listed = installed.auditor("plugins").stdout
    assert all(name in listed for name in ("uce", "sequence", "clip-zero-shot")), listed
    # it erases and audits for minutes; that it gets there is what is asked
    with (
        (installed.folder / "said").open("w+") as said,
        subprocess.Popen(
            [installed.python, "-m", "auditor", "demo", "--out", "demo"],
            cwd=installed.work,
            env=installed.environment(),
            stdout=said,
            stderr=said,
        ) as demo,
    ):
        text, deadline = "", time.monotonic() + 300
        while "erasing" not in text and demo.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
            text = Path(said.name).read_text()
        demo.kill()
    assert "Cannot read" not in text and "Traceback" not in text and "erasing" in text, text


def test_every_bundled_policy_is_found_by_name(installed: Installed) -> None:
    names = bundled_names()
    assert {"micro-person", "micro-updates", "sd14-object-gate", "sd21-object-gate"} <= set(names)
    for name in ("paper-celebrities-100", "mace-celebrities-50", "meta-unlearning-benign", "resalign-nudity"):
        names.remove(name)  # their names and prompts are the user's to bring
    done = installed.auditor("policy", "check", "paper-celebrities-100")
    assert done.returncode == 2 and "erased-celebrities.txt" in done.stderr
    every = (
        "import sys; from auditor._cli import cli; "
        "[cli.main(['policy', 'check', name], standalone_mode=False) for name in sys.argv[1:]]; "
        "print('explained:'); cli.main(['policy', 'explain', 'micro-person'], standalone_mode=False)"
    )
    done = installed._call(installed.python, "-c", every, *names)
    checked, _, explained = done.stdout.partition("explained:")
    assert done.returncode == 0 and checked.count("digest: sha256:") == len(names), done.stderr
    assert "Borin Talvek" in explained


def test_a_policy_is_written(installed: Installed) -> None:
    options = [
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
    done = installed.auditor("policy", "init", "gate.yaml", *options)
    assert done.returncode == 0, done.stderr
    assert installed.auditor("policy", "check", "gate.yaml").returncode == 0


def test_a_plugin_is_begun(installed: Installed) -> None:
    done = installed.auditor("plugins", "new", "probe", "x")
    assert done.returncode == 0, done.stderr
    package = next(path for path in installed.work.iterdir() if (path / "pyproject.toml").is_file())
    done = installed._call(
        installed.python,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        package,
        PYTHONPATH=f"{SITE}:{package / 'src'}",
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_erase_and_audit(installed: Installed) -> None:
    """With bundled options, found by name; the audit is a tiny one, of the small model."""
    gradients(installed.work / "examples")
    found = document(Path("examples"))
    (installed.work / "tiny.yaml").write_text(yaml.safe_dump(found))
    done = installed.auditor(
        "erase",
        "micro",
        "--policy",
        "tiny.yaml",
        "--eraser",
        "uce",
        "--options",
        "micro-uce",
        "--out",
        "erased",
        PYTHONPATH=str(SITE),
    )
    assert done.returncode == 0, done.stderr
    done = installed.auditor("audit", "erased", "--policy", "tiny.yaml", "--out", "run", PYTHONPATH=str(SITE))
    assert done.returncode in (0, 1, 3) and (installed.work / "run" / "report.html").is_file(), done.stderr
    assert installed.auditor("report", "verify", "run").returncode == 0
    assert installed.auditor("policy", "check", "no-such-policy").returncode == 2


def test_the_sdist_is_complete(installed: Installed) -> None:
    import tarfile

    (sdist,) = (installed.folder / "dist").glob("auditor-[0-9]*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {"/".join(name.split("/")[1:]) for name in archive.getnames()}
    wanted = {"README.md", "LICENSE", "NOTICE", "Makefile", "docs/safety.md", "policies/micro-person.yaml"}
    wanted |= {f"plugins/{path.name}/pyproject.toml" for path in PLUGINS}
    assert wanted <= names and not any(name.startswith(("build/", "demo/", ".venv")) for name in names)
