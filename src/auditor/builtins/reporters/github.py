"""For GitHub Actions: a job's summary, and annotations at the policy's lines."""

from __future__ import annotations

from pathlib import Path

from auditor.builtins.reporters.markdown import document
from auditor.plugin.contracts import Reporter
from auditor.report import Report
from auditor.report.voice import findings, headline, next_box
from auditor.report.words import gate_cells, line, remarks

_LARGEST_SUMMARY = 1_000_000  # bytes; GitHub cuts a step's summary off at 1 MiB
_MOST_ANNOTATIONS = 10  # of each severity in a step


class GithubSummary(Reporter):
    """``github-summary.md``, to be appended to ``$GITHUB_STEP_SUMMARY``."""

    name = "github-summary"
    summary = "a job summary for GitHub Actions"
    filename = "github-summary.md"

    def render(self, report: Report, folder: Path) -> bytes:
        """Markdown below 1 MiB, the gravest cells first."""
        rows = len(gate_cells(report))
        content = document(report, rows, "##").encode()
        while len(content) > _LARGEST_SUMMARY and rows:
            rows //= 2
            content = document(report, rows, "##").encode()
        return content


class GithubAnnotations(Reporter):
    """``github-annotations.txt``: workflow commands, to be printed."""

    name = "github-annotations"
    summary = "annotations at the policy's lines, for GitHub Actions"
    filename = "github-annotations.txt"

    def render(self, report: Report, folder: Path) -> bytes:
        """One command a line: the verdict, and at most ten errors and ten warnings; nothing of a message
        can begin another."""
        verdict = f"::notice title=auditor::{report.verdict.outcome}: {_data(headline(report), 1000)}\n"
        following = " ".join(next_box(report).lines)
        lines, left = [verdict], {"error": _MOST_ANNOTATIONS, "warning": _MOST_ANNOTATIONS}
        lines.append(f"::notice title=auditor::What to do next: {_data(following, 3000)}\n")
        lines += [f"::notice title=auditor::{_data(remark, 3000)}\n" for remark in remarks(report)]
        for finding in findings(report):
            if not left[finding.severity]:
                continue
            left[finding.severity] -= 1
            file = report.policy_file
            place = f"file={_property(file.path)},line={file.line_of(finding.concept)}," if file else ""
            lines.append(
                f"::{finding.severity} "
                f"{place}title={_property(f'auditor: {finding.rule}')}::{_data(finding.message)}\n"
            )
        return "".join(lines).encode()


def _data(text: str, longest: int = 500) -> str:
    return line(text, longest).replace("%", "%25")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
