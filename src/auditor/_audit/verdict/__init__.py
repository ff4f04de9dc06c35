"""From evidence to a report: controls, rates, ledger, and the one place where a verdict is made. Pure."""
