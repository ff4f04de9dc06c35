"""Looks at a distribution as the audit would, and says what is wrong with what it registers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic.fields import FieldInfo

from auditor._files.entry_points import canonical
from auditor._files.nearest import listed
from auditor.errors import PluginError, PolicyError, UsageError
from auditor.plugin._loader import SINGULAR, PluginRecord, load_plugins, make_plugin


def check_distribution(distribution: str) -> Iterator[str]:
    """A sentence for each plugin of ``distribution`` that is sound. Raises :class:`PluginError` with all that
    is not.

    Looks at what the loader looks at (API number, import, hook names, contracts, name collisions), at the
    options' documentation, and at whether the plugin can be made with its defaults. Behaviour is the
    conformance kit's part.
    """
    wanted, loaded = canonical(distribution), load_plugins()
    own = [record for record in loaded.records if canonical(record.distribution) == wanted]
    observers = [
        observer for observer in loaded.observers if canonical(observer.origin.rpartition(" ")[0]) == wanted
    ]
    if not own and not observers:
        known = list(dict.fromkeys(record.distribution for record in loaded.records))
        raise UsageError(
            f"No distribution called '{distribution}' registers a plugin here: install it first, or "
            f"{listed(distribution, known, 'there are')}"
        )
    problems = []
    for record in own:
        found = list(_problems(record))
        problems += [f"{record.name}: {problem}" for problem in found]
        if not found:
            yield f"{SINGULAR[record.kind]} {record.name}: sound"
        required = [name for name, field in _options_of(record).items() if field.is_required()]
        if required:
            yield f"{record.name}: not made, it has no default for {', '.join(required)}"
    if observers:
        yield f"observer of {distribution}: sound"
    yield (
        "not run: the conformance tests (what it does twice, alone, in company, to the process, without a "
        "network). 'python -m pytest' in its folder runs them."
    )
    if problems:
        raise PluginError(f"{distribution} has {len(problems)} problems. {' '.join(problems)}")


def _options_of(record: PluginRecord) -> Mapping[str, FieldInfo]:
    return record.plugin.Options.model_fields if record.plugin else {}


def _problems(record: PluginRecord) -> Iterator[str]:
    if record.plugin is None:
        yield record.error or "did not load."
        return
    plugin = record.plugin
    for name, field in plugin.Options.model_fields.items():
        if not field.description:
            yield f"the option '{name}' has no documentation: put a string under it."
    if not plugin.__doc__:
        yield f"{plugin.__name__} has no docstring."
    if any(field.is_required() for field in plugin.Options.model_fields.values()):
        return
    try:
        made = make_plugin(record.kind, record.name, {})
    except (PluginError, PolicyError) as error:
        yield f"it cannot be made with its default options: {error}"
    else:
        if not hasattr(made, "options"):
            yield "its __init__ does not call super().__init__(options)."
