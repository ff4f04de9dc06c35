"""The report as JUnit XML: a test case for every deciding cell, the share of updates, every control, and the
verdict."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from auditor.plugin.contracts import Reporter
from auditor.report import Outcome, Report, State
from auditor.report.voice import headline, next_box, reasons, said_of, what_was_shown
from auditor.report.words import gate_cells, line, remarks, state_of

_PROBLEMS = {State.HELD: None, State.FAILED: "failure", State.UNDECIDED: "error"}


class JUnit(Reporter):
    """``junit.xml``: held is a success, failed a failure, and whatever was not shown an error, never a
    skip."""

    name = "junit"
    summary = "JUnit XML, for CI"
    filename = "junit.xml"

    def render(self, report: Report, folder: Path) -> bytes:
        """Valid against the schema of Jenkins' xUnit plugin; characters that XML may not hold are
        replaced."""
        suite = ElementTree.Element(
            "testsuite", name=line(f"auditor: {report.title}"), timestamp=line(report.provenance.started)
        )
        facts = {
            "checkpoint": report.checkpoint.digest,
            "policy": report.policy_digest,
            "verdict": report.verdict.outcome.value,
            "headline": headline(report),
            "next": " ".join(next_box(report).lines),
        }
        facts |= {f"remark {number}": line(text, 3000) for number, text in enumerate(remarks(report), 1)}
        properties = ElementTree.SubElement(suite, "properties")
        for name, value in facts.items():
            ElementTree.SubElement(properties, "property", name=name, value=line(value, 3000))
        problems = {"failure": 0, "error": 0}

        def case(
            group: str, name: str, took: float, problem: str | None, kind: str, sentence: str, more: str = ""
        ) -> None:
            found = ElementTree.SubElement(
                suite, "testcase", classname=line(group), name=line(name), time=f"{took:.3f}"
            )
            if problem is not None:
                problems[problem] += 1
                own = ElementTree.SubElement(found, problem, type=kind, message=line(sentence))
                own.text = "\n".join(line(text, 3000) for text in (more or sentence).splitlines())

        for cell in gate_cells(report):
            problem = _PROBLEMS[cell.state or State.UNDECIDED]
            sentence = said_of(report, cell)
            case(f"cells.{cell.arm}", cell.surface, cell.seconds, problem, state_of(cell), sentence)
        if report.population is not None:
            state, sentence = report.population.state, what_was_shown(report)
            case("updates", "share", 0.0, _PROBLEMS[state], state, sentence, sentence)
        for control in report.controls:
            if control.passed is not None and control.decides == "PASS":
                problem = None if control.passed else "error"
                # the names of format 1: CI systems follow a test by its name
                name = control.name if control.concept is None else f"{control.name} {control.concept}"
                case(f"controls.{control.arm}", name, 0.0, problem, "not passed", control.sentence)
        outcome = report.verdict.outcome
        problem = {Outcome.PASS: None, Outcome.FAIL: "failure"}.get(outcome, "error")
        case(
            "verdict",
            "verdict",
            report.provenance.seconds,
            problem,
            outcome.value,
            headline(report),
            "\n".join([*(each.whole for each in reasons(report)), *next_box(report).lines]),
        )
        suite.set("tests", str(len(suite.findall("testcase"))))
        suite.set("failures", str(problems["failure"]))
        suite.set("errors", str(problems["error"]))
        suite.set("time", f"{report.provenance.seconds:.3f}")
        root = ElementTree.Element("testsuites")
        root.append(suite)
        ElementTree.indent(root)
        content: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
        return content + b"\n"
