"""A file by the name that a CI finds it under."""

from __future__ import annotations

from pathlib import Path

import pytest

from auditor._files.repository import CHECKOUTS, path_in_repository


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in CHECKOUTS:
        monkeypatch.delenv(name, raising=False)
    policy = tmp_path / "repo" / "models" / "policies" / "gate.yaml"
    policy.parent.mkdir(parents=True)
    policy.write_text("")
    return tmp_path / "repo"


@pytest.mark.parametrize("variable", CHECKOUTS)
@pytest.mark.parametrize("job", ["repo", "repo/models", "repo/models/policies", "."])
def test_it_is_relative_to_the_cis_checkout_wherever_the_job_is(
    repository: Path, monkeypatch: pytest.MonkeyPatch, variable: str, job: str
) -> None:
    monkeypatch.chdir(repository.parent / job)
    monkeypatch.setenv(variable, str(repository))
    policy = repository / "models" / "policies" / "gate.yaml"
    relative = Path("../" * 5) / "repo/models/policies/gate.yaml" if job == "." else policy
    assert path_in_repository(policy) == "models/policies/gate.yaml"
    assert path_in_repository(relative if relative.exists() else policy) == "models/policies/gate.yaml"


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_without_a_ci_it_is_relative_to_the_root_of_git(
    repository: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(repository / "models")
    mark = repository / ".git"
    mark.mkdir() if kind == "folder" else mark.write_text("gitdir: elsewhere")
    assert path_in_repository(Path("policies/gate.yaml")) == "models/policies/gate.yaml"
    monkeypatch.chdir("/")
    assert path_in_repository(repository / "models/policies/gate.yaml") == "models/policies/gate.yaml"


@pytest.mark.parametrize("checkout", ["", "relative", "/nowhere"])
def test_a_checkout_that_it_does_not_lie_in_says_nothing(
    repository: Path, monkeypatch: pytest.MonkeyPatch, checkout: str
) -> None:
    monkeypatch.setenv("GITHUB_WORKSPACE", checkout)
    monkeypatch.chdir(repository / "models")
    assert path_in_repository(Path("policies/gate.yaml")) == "policies/gate.yaml"
    (repository / ".git").mkdir()
    assert path_in_repository(Path("policies/gate.yaml")) == "models/policies/gate.yaml"


def test_links_on_the_way_do_not_hide_it(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository.parent / "link").symlink_to(repository)
    monkeypatch.setenv("GITHUB_WORKSPACE", str(repository.parent / "link"))
    assert path_in_repository(repository / "models/policies/gate.yaml") == "models/policies/gate.yaml"
    shared = repository.parent / "shared.yaml"
    shared.write_text("")
    (repository / "gate.yaml").symlink_to(shared)
    monkeypatch.setenv("GITHUB_WORKSPACE", str(repository))
    assert path_in_repository(repository / "gate.yaml") == "gate.yaml"


def test_outside_of_everything_it_is_its_name(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "elsewhere").mkdir()
    monkeypatch.chdir(repository / "elsewhere")
    assert path_in_repository(repository / "models/policies/gate.yaml") == "gate.yaml"
