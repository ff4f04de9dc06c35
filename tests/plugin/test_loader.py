"""The loader: every plugin is listed, a broken one is named, and only who asks for it fails."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint, version
from pathlib import Path
from types import ModuleType

import pytest

from auditor._files.entry_points import ENTRY_POINT_GROUP, Installed
from auditor.builtins.probes.finetune import InDomain
from auditor.errors import PluginError, PolicyError
from auditor.plugin import _door as door
from auditor.plugin import hookimpl
from auditor.plugin._loader import find_plugin, load_plugins, make_plugin


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Entry points of one distribution to fill in; the loader forgets what it knew before and after."""
    found: list[object] = []
    monkeypatch.setattr(
        "auditor._files.entry_points.installed",
        lambda: [Installed("some", "1", tuple(found))],  # type: ignore[arg-type]
    )
    load_plugins.cache_clear()
    yield found  # type: ignore[misc]
    load_plugins.cache_clear()


def loaded(name: str, **members: object) -> EntryPoint:
    """An entry point that loads a module with these members."""
    module = ModuleType(name)
    vars(module).update(members)
    entry = EntryPoint(name=name, value=name, group=ENTRY_POINT_GROUP)
    object.__setattr__(entry, "load", lambda: module)
    return entry


def test_a_broken_entry_point_is_listed_by_name_and_stops_nobody(entries: list[object]) -> None:
    entries.append(EntryPoint(name="broken", value="no_such_module", group=ENTRY_POINT_GROUP))
    assert any(
        record.name == "broken" and "no_such_module" in (record.error or "")
        for record in load_plugins().records
    )
    assert find_plugin("probes", "in-domain").plugin is InDomain


def test_asking_for_what_is_not_there_names_what_did_not_load(entries: list[object]) -> None:
    entries.append(EntryPoint(name="broken", value="no_such_module", group=ENTRY_POINT_GROUP))
    with pytest.raises(PolicyError, match=r"no probe called 'mine'.*Did not load: .*no_such_module"):
        find_plugin("probes", "mine")


def test_a_plugin_that_takes_anothers_name_is_refused(
    entries: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mine(InDomain):
        pass

    @hookimpl
    def auditor_register_probes() -> list[type[InDomain]]:
        return [Mine]

    module = ModuleType("copycat")
    module.auditor_register_probes = auditor_register_probes  # type: ignore[attr-defined]

    class Entry:
        name, group = "copycat", ENTRY_POINT_GROUP

        def load(self) -> ModuleType:
            return module

    entries.append(Entry())
    assert find_plugin("probes", "in-domain").distribution == "auditor"
    refused = next(record for record in load_plugins().records if record.distribution == "some")
    assert refused.error == f"its name, 'in-domain', is also that of a probe of auditor {version('auditor')}."


def test_options_are_checked_against_the_plugins_model() -> None:
    with pytest.raises(PolicyError, match="detector 'clip-zero-shot': 'labels' is missing"):
        make_plugin("detectors", "clip-zero-shot", {})


def test_what_a_plugin_raises_comes_through_the_door_with_its_name() -> None:
    probe = make_plugin("probes", "in-domain", {})

    def broken() -> None:
        raise KeyError("x")

    with pytest.raises(
        PluginError, match=r"plugin 'in-domain' \(auditor [\d.]+\) raised KeyError at .*test_loader.py:\d+"
    ):
        door.call(probe, broken)


def test_the_distributions_of_ours_have_the_plugins_that_are_told_of_them() -> None:
    from auditor.plugin._loader import _DISTRIBUTIONS

    folder = Path(__file__).parents[2] / "plugins"
    assert sorted(_DISTRIBUTIONS) == sorted(path.name for path in folder.iterdir() if path.is_dir())
    for distribution, names in _DISTRIBUTIONS.items():
        source = "\n".join(path.read_text() for path in (folder / distribution / "src").rglob("*.py"))
        assert sorted(names) == sorted(re.findall(r'^    name = "([a-z0-9-]+)"$', source, re.MULTILINE))
