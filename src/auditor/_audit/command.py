"""The command line of an audit, as the manifest keeps it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from auditor.plugin._loader import named_files


def command_of(
    checkpoint: str,
    policy: Path | str,
    base: str | None,
    out: Path,
    chosen: Mapping[str, str],
    seal: Path | None,
    *,
    offline: bool,
) -> str:
    """The command line that does this audit again, as a shell reads it."""
    options = [
        "--policy",
        str(policy),
        *(["--base", base] if base else []),
        *(["--offline"] if offline else []),
    ]
    options += [] if seal is None else ["--seal", str(seal)]
    for what, value in sorted(chosen.items()):
        options += ["--prediction", value] if what == "prediction" else ["--component", f"{what}={value}"]
    options += [part for file in named_files() for part in ("--plugin", file.name)]
    return shlex.join(
        [
            "auditor",
            "audit",
            *options,
            "--out",
            out.name,
            *(["--"] if checkpoint.startswith("-") else []),
            checkpoint,
        ]
    )


def more_of(command: str, more: Mapping[str, float]) -> str:
    """``command``, an audit's, with larger numbers of the budget by key."""
    words = shlex.split(command)
    for key in more:
        flag = f"--{key.replace('_', '-')}"
        if flag in words:
            at = words.index(flag)
            del words[at : at + 2]
    flags = [part for key, value in more.items() for part in (f"--{key.replace('_', '-')}", f"{value:g}")]
    return shlex.join([*words[:2], *flags, *words[2:]])
