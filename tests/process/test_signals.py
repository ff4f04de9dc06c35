"""A long job that is told to end ends with a sentence, and gives the signals back."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from auditor._process.signals import stoppable
from auditor.errors import InterruptedRunError


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_becomes_an_error_and_the_handlers_are_put_back(number: signal.Signals) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    with pytest.raises(InterruptedRunError) as error, stoppable():
        os.kill(os.getpid(), number)
    assert int(error.value.exit_code) == 128 + number
    assert {each: signal.getsignal(each) for each in before} == before


def test_in_another_thread_the_signals_stay_the_callers() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with stoppable():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
