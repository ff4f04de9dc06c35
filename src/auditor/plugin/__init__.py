"""How auditor is extended: hook specifications, contracts, the loader and the door that plugins are called through."""

from __future__ import annotations

import pluggy

hookimpl = pluggy.HookimplMarker("auditor")
"""Marks a function as an implementation of one of the hooks in :mod:`auditor.plugin.hookspecs`."""

API_VERSION = 1
