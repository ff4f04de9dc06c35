"""``python -m auditor``."""

from auditor._cli import main

main()
