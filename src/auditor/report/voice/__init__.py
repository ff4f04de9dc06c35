"""One voice for a verdict: what every form says of a report, made once.

:func:`headline` is the strongest thing that was found, :func:`reasons` why that is the verdict, and
:func:`next_box` what to do next. All are pure functions of a report.
"""

from auditor.report.voice.causes import causes
from auditor.report.voice.findings import HELP, RULES, Finding, findings
from auditor.report.voice.found import headline, said_of, strongest, when
from auditor.report.voice.next import Next, next_box, notes
from auditor.report.voice.over_updates import STATES, Kind, kinds, numbers_of, what_was_shown
from auditor.report.voice.reasons import ABOVE_THE_FOLD, Reason, folded, reasons

__all__ = [
    "ABOVE_THE_FOLD",
    "HELP",
    "RULES",
    "STATES",
    "Finding",
    "Kind",
    "Next",
    "Reason",
    "causes",
    "findings",
    "folded",
    "headline",
    "kinds",
    "next_box",
    "notes",
    "numbers_of",
    "reasons",
    "said_of",
    "strongest",
    "what_was_shown",
    "when",
]
