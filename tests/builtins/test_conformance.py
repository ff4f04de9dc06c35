"""What comes with auditor passes the conformance kit that it asks of others."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from auditor.builtins.detectors.by_domain import ByDomain
from auditor.builtins.detectors.clip_zero_shot import ClipZeroShot
from auditor.builtins.erasers.esd import Esd
from auditor.builtins.erasers.mace import Mace
from auditor.builtins.erasers.uce import Uce
from auditor.builtins.masks.simple import AttentionMasks, WholeImage
from auditor.builtins.metrics.clip_score import ClipScore
from auditor.builtins.metrics.distances import ClipFrechet, ClipKernel
from auditor.builtins.metrics.outcomes import HarmonicMean, RetainedAccuracy
from auditor.builtins.probes.as_it_is import Prompts, Sampling
from auditor.builtins.probes.base_lora import BaseLora
from auditor.builtins.probes.finetune import ClipTercile, InDomain, OutOfDomain
from auditor.builtins.reporters.attestation import Attestation
from auditor.builtins.reporters.card import EvalResults, ModelCard
from auditor.builtins.reporters.github import GithubAnnotations, GithubSummary
from auditor.builtins.reporters.html import Html
from auditor.builtins.reporters.json import Json
from auditor.builtins.reporters.junit import JUnit
from auditor.builtins.reporters.markdown import Markdown
from auditor.builtins.reporters.sarif import Sarif
from auditor.builtins.reporters.tables import Csv
from auditor.testing.detectors import DetectorConformance
from auditor.testing.erasers import EraserConformance, MaskSourceConformance
from auditor.testing.kit import Kit
from auditor.testing.metrics import MetricConformance
from auditor.testing.other_probes import PromptProbeConformance, SamplingProbeConformance
from auditor.testing.probes import ProbeConformance
from auditor.testing.reporters import ReporterConformance

pytestmark = pytest.mark.usefixtures("nano")


@pytest.fixture(scope="module")
def micro(nano: None, tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """This module's own: the session's kit belongs to the micro world as it is."""
    return Kit(tmp_path_factory.mktemp("nano-kit"))


TRAIN = {"candidates": "micro-people", "names": 2, "images_per_prompt": 1, "batch": 2}
CLIP = {"model": "micro", "labels": "micro-all", "templates": "erasure-templates"}


class TestSampling(SamplingProbeConformance):
    plugin = Sampling
    options: ClassVar = {"scheduler": "ddim", "steps": 6}


class TestPrompts(PromptProbeConformance):
    plugin = Prompts
    options: ClassVar = {"templates": ["{} at the sea"], "synonyms": ["somebody"]}


class TestInDomain(ProbeConformance):
    plugin = InDomain
    options: ClassVar[dict[str, Any]] = TRAIN


class TestOutOfDomain(ProbeConformance):
    plugin = OutOfDomain
    options: ClassVar[dict[str, Any]] = TRAIN | {"candidates": "micro-objects"}
    method = "full"


class TestBaseLora(ProbeConformance):
    plugin = BaseLora
    options: ClassVar[dict[str, Any]] = TRAIN | {"strength": 0.5}


class TestClipTercile(ProbeConformance):
    plugin = ClipTercile
    options: ClassVar[dict[str, Any]] = TRAIN | {"tercile": 3, "split": "count", "model": "micro"}


class TestClipZeroShot(DetectorConformance):
    plugin = ClipZeroShot
    options: ClassVar[dict[str, Any]] = CLIP


class TestByDomain(DetectorConformance):
    plugin = ByDomain
    options: ClassVar[dict[str, Any]] = {"domains": {"people": {"use": "clip-zero-shot", "options": CLIP}}}


class TestMace(EraserConformance):
    plugin = Mace
    options: ClassVar[dict[str, Any]] = {
        "lambda_identity": 10.0,
        "preserve": "micro-people",
        "images": 2,
        "steps": 2,
        "size": 32,
        "sampling_steps": 4,
    }


class TestEsd(EraserConformance):
    plugin = Esd
    options: ClassVar[dict[str, Any]] = {"steps": 2, "size": 32, "sampling_steps": 4}


class TestUce(EraserConformance):
    plugin = Uce
    options: ClassVar[dict[str, Any]] = {"guide": None, "preserve": "micro-people", "push": 1.0}


class TestAttentionMasks(MaskSourceConformance):
    plugin = AttentionMasks


class TestWholeImage(MaskSourceConformance):
    plugin = WholeImage


class TestClipScore(MetricConformance):
    plugin = ClipScore
    options: ClassVar[dict[str, Any]] = {"model": "micro"}


class TestClipFrechet(MetricConformance):
    plugin = ClipFrechet
    options: ClassVar[dict[str, Any]] = {"model": "micro"}


class TestClipKernel(MetricConformance):
    plugin = ClipKernel
    options: ClassVar[dict[str, Any]] = {"model": "micro"}


class TestRetainedAccuracy(MetricConformance):
    plugin = RetainedAccuracy


class TestHarmonicMean(MetricConformance):
    plugin = HarmonicMean


class TestJson(ReporterConformance):
    plugin = Json


class TestHtml(ReporterConformance):
    plugin = Html


class TestMarkdown(ReporterConformance):
    plugin = Markdown


class TestJUnit(ReporterConformance):
    plugin = JUnit


class TestSarif(ReporterConformance):
    plugin = Sarif


class TestGithubSummary(ReporterConformance):
    plugin = GithubSummary


class TestGithubAnnotations(ReporterConformance):
    plugin = GithubAnnotations


class TestModelCard(ReporterConformance):
    plugin = ModelCard


class TestEvalResults(ReporterConformance):
    plugin = EvalResults
    options: ClassVar[dict[str, Any]] = {"dataset": "org/erasure"}


class TestAttestation(ReporterConformance):
    plugin = Attestation


class TestCsv(ReporterConformance):
    plugin = Csv
