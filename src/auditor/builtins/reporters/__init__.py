"""The reporters that come with auditor."""

from __future__ import annotations

from auditor.builtins.reporters.attestation import Attestation
from auditor.builtins.reporters.badge import Badge
from auditor.builtins.reporters.card import EvalResults, ModelCard
from auditor.builtins.reporters.github import GithubAnnotations, GithubSummary
from auditor.builtins.reporters.html import Html
from auditor.builtins.reporters.json import Json
from auditor.builtins.reporters.junit import JUnit
from auditor.builtins.reporters.markdown import Markdown
from auditor.builtins.reporters.sarif import Sarif
from auditor.builtins.reporters.tables import Csv, UpdatesCsv
from auditor.plugin import hookimpl
from auditor.plugin.contracts import Reporter


@hookimpl
def auditor_register_reporters() -> list[type[Reporter]]:
    """The built-in reporters."""
    return [
        Json,
        Html,
        Markdown,
        JUnit,
        Sarif,
        GithubSummary,
        GithubAnnotations,
        ModelCard,
        EvalResults,
        Attestation,
        Badge,
        Csv,
        UpdatesCsv,
    ]
