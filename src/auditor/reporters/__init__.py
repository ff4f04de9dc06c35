"""The reporters that come with auditor."""

from __future__ import annotations

from auditor.plugin import hookimpl
from auditor.plugin.contracts import Reporter
from auditor.reporters.attestation import Attestation
from auditor.reporters.card import EvalResults, ModelCard
from auditor.reporters.github import GithubAnnotations, GithubSummary
from auditor.reporters.html import Html
from auditor.reporters.json import Json
from auditor.reporters.junit import JUnit
from auditor.reporters.markdown import Markdown
from auditor.reporters.sarif import Sarif
from auditor.reporters.tables import Csv


@hookimpl
def auditor_register_reporters() -> list[type[Reporter]]:
    """The built-in reporters."""
    return [Json, Html, Markdown, JUnit, Sarif, GithubSummary, GithubAnnotations, ModelCard, EvalResults, Attestation, Csv]
