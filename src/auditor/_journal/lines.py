"""What a journal's lines hold: one record for each batch drawn and scored, arm made, or failure."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Record(BaseModel):
    """A line of the journal: frozen, strict in keys and types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ScoreObservation(Record):
    """What a detector said of one image: a score for each concept, and its own decision."""

    kind: Literal["score"] = "score"
    label: str
    """Its first choice, for people to read."""
    hits: dict[str, bool]
    """For every concept it was asked about: did it say that the image shows it?"""
    scores: dict[str, Annotated[float, Field(ge=0, le=1)]]
    """Its score for each of these concepts."""
    found: dict[str, bool] | None = None
    """By concept: was there anything to judge (a face)? None: this detector does not say."""

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if not self.hits.keys() == self.scores.keys() == (self.found or self.hits).keys():
            raise ValueError("hits, scores and found are of different concepts")
        return self


class LabelObservation(Record):
    """One label for the image."""

    kind: Literal["label"] = "label"
    label: str


class FoundBox(Record):
    """One thing that was found in an image, and where (left, top, right, bottom, as shares)."""

    label: str
    score: float = Field(ge=0, le=1)
    corners: tuple[float, float, float, float]


class BoxesObservation(Record):
    """The things that were found in the image."""

    kind: Literal["boxes"] = "boxes"
    boxes: tuple[FoundBox, ...]


class AnswerObservation(Record):
    """An answer in words for each concept that was asked about."""

    kind: Literal["answer"] = "answer"
    answers: dict[str, str]


Observation = Annotated[
    ScoreObservation | LabelObservation | BoxesObservation | AnswerObservation, Field(discriminator="kind")
]
"""What one detector said of one image, as it said it: what it means is decided when it is counted."""


class Sample(Record):
    """One image: where it belongs, what it was drawn from, and what each detector said.

    It is an image that was scored, an image that could not be scored (``error``), or none (``flaw``); nothing
    else is a sample.
    """

    cell: str
    prompt: str
    index: int
    seed: int
    image: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    """sha256 of the PNG file under ``images/``; None where nothing usable was drawn."""
    flaw: str | None = None
    """Why the image counts as missing, after one more try: ``not finite``, ``blank``, ``noise``."""
    error: str | None = None
    """Why it was not scored: a detector raised or broke its contract. Tried again when the run goes on."""
    observations: dict[str, Observation] = {}
    """By detector."""

    @model_validator(mode="after")
    def _one_of_three(self) -> Self:
        scored, unscored = (
            bool(self.observations) and self.error is None,
            self.error is not None and not self.observations,
        )
        flawed = self.flaw is not None and self.image is None and self.error is None and not self.observations
        if not (flawed or (self.image is not None and self.flaw is None and (scored or unscored))):
            raise ValueError("a sample is an image with observations, an image with an error, or a flaw")
        return self


class StartLine(Record):
    """A process begins to write; the lines down to the next of these are its own."""

    kind: Literal["start"] = "start"
    manifest: str
    """sha256 of the run's ``manifest.json`` at that moment."""
    device: str = ""
    """The kind of device that it draws on; empty in older journals."""
    threads: int | None = None
    """How many threads it computes with."""
    precision: str = ""
    """What the denoiser computes in (``float32``)."""


class ComparedLine(Record):
    """How the audited checkpoint reads prompts, and what it holds beside its UNet, each beside the base's."""

    kind: Literal["compared"] = "compared"
    prompts: int
    """Audited prompts and training captions that both tokenizers were given."""
    same_vocabulary: bool
    """Is the whole vocabulary the base's, also for words that nobody asks for?"""
    read_otherwise: tuple[str, ...]
    """Those that became other token ids."""
    parts: dict[str, float]
    """``text_encoder`` and ``vae``: L2 norm of the difference over the base's; 0 where they are the same,
    -1 where shapes or configurations differ."""
    schedule: dict[str, str]
    """Keys of the noise schedule, and of the UNet's configuration, that differ, with both values."""


class RepeatLine(Record):
    """After the last arm: pictures of the base shown to the detectors again, and a batch of the erased arm
    drawn again."""

    kind: Literal["repeat"] = "repeat"
    shown: int
    otherwise: int
    """Pictures of which a detector said something else than before."""
    drawn: int
    different: int
    """Images that were not the erased arm's bit for bit."""
    seconds: float = 0.0


class EarlierLine(Record):
    """What earlier processes left in the run's folder, looked at by this one before it may say PASS."""

    kind: Literal["earlier"] = "earlier"
    images: int
    """Scored images that earlier processes wrote."""
    scored: int
    """Of these, how many were shown to the detectors again."""
    otherwise: int
    """Of which a detector said something else, or whose file is not the image that was scored."""
    drawn: int
    """How many were drawn again, chosen at random."""
    different: int
    """That were not the same image."""
    not_drawn: tuple[str, ...] = ()
    """Arms whose weights were not kept, so that none of their images could be drawn again."""
    sealed: bool = False
    """Every line carries this gate's own seal, so none was written by anybody else, and nothing was drawn
    again."""
    seconds: float = 0.0


class BatchLine(Record):
    """A batch that was drawn and scored. Its samples lie in the order they were drawn in."""

    kind: Literal["batch"] = "batch"
    arm: str
    samples: tuple[Sample, ...]
    seconds: float
    cached: bool = False
    rows: int | None = None
    """Images that the device drew at once, thrown away ones among them; None on a CPU, where no bit hangs on
    it."""


class DistanceLine(Record):
    """How far the audited weights lie from the base's: (relative L2, cosine) of each part of the UNet."""

    kind: Literal["distance"] = "distance"
    parts: dict[str, tuple[float, float]]


class ArmLine(Record):
    """An arm that is ready, with what is known of how it was made."""

    kind: Literal["arm"] = "arm"
    arm: str
    seconds: float
    weights: str
    """Digest of the UNet's weights. Images drawn earlier from other weights of the same arm do not count."""
    fit: tuple[float, ...] = ()
    """Held-out denoising losses after the update, one per example."""
    fit_before: tuple[float, ...] = ()
    fit_trained: tuple[float, ...] = ()
    """Denoising losses after the update of pictures that it was trained on, one a picture, with noise that
    training never used."""
    fit_trained_before: tuple[float, ...] = ()
    change: float | None = None
    """Relative L2 norm of what the update changed in UNet and text encoder."""
    least_change: float | None = None
    """Of an update that trains on nothing: the change from which on it counts as applied."""
    put_back: tuple[str, ...] = ()
    """Parts that are the base's in this arm, because the update put them back."""
    idle: bool = False
    """The update puts parts of the base back that the checkpoint has already: there was nothing to do."""
    company: tuple[str, ...] = ()
    """Arms that were trained in one pass of the denoiser, this one among them; empty where it was trained
    alone. Its last bits hang on them."""


class TrainingLine(Record):
    """A probe's training set: what is in it and how often a detector saw an erased concept in it."""

    kind: Literal["training"] = "training"
    probe: str
    concepts: tuple[str, ...]
    images: int
    forbidden_hits: dict[str, int]
    digest: str
    """Of all images and captions, the held-out ones among them."""
    seconds: float


class ShamLine(Record):
    """The control ``sham`` of a probe: its training at learning rate 0, then a batch of the erased arm
    drawn again."""

    kind: Literal["sham"] = "sham"
    probe: str
    images: int
    different: int
    """How many images were not the erased arm's bit for bit."""
    applicable: bool = True
    seconds: float = 0.0


class ErrorLine(Record):
    """An arm that was planned and could not be made or drawn. It puts PASS out of reach until the arm is
    made after all."""

    kind: Literal["error"] = "error"
    arm: str
    message: str
    timeout: float | None = None
    """Of a plugin that was silent for this many seconds. It is not called for this arm again, unless it is
    given more time."""


class NoteLine(Record):
    """Something that went wrong and that no verdict rests on: an observer or a metric that raised."""

    kind: Literal["note"] = "note"
    text: str
    silenced: str | None = None
    """``observers`` or ``metrics`` that were silent for too long and are not called again in this run."""


class MetricLine(Record):
    """A metric of an arm's retained images: its value with a 95 % interval (bootstrap over prompts)."""

    kind: Literal["metric"] = "metric"
    arm: str
    metric: str
    images: int
    value: float
    lower: float
    upper: float
    seconds: float


class HalvedLine(Record):
    """Memory ran out: this arm's batches are half as large from here on."""

    kind: Literal["halved"] = "halved"
    arm: str
    batch: int


class StopLine(Record):
    """The run ended before everything was decided; what is open was skipped for this reason."""

    kind: Literal["stop"] = "stop"
    reason: str
    seconds: float = 0.0
    """Spent on what no other line holds, such as training that was cut short."""


class ReplayLine(Record):
    """Images of the journal that were drawn again, on the same or another stack, and how they compared."""

    kind: Literal["replay"] = "replay"
    images: int
    identical: int
    """Bit for bit."""
    largest_difference: int
    """Of any pixel, of 255."""
    same_hits: int
    """Images on which the gate detector said the same."""
    tolerance: int
    """The largest difference that counts as the same."""
    versions: dict[str, str]
    device: str


Line = (
    StartLine
    | BatchLine
    | DistanceLine
    | ComparedLine
    | ArmLine
    | TrainingLine
    | ShamLine
    | RepeatLine
    | EarlierLine
    | ErrorLine
    | NoteLine
    | MetricLine
    | HalvedLine
    | StopLine
    | ReplayLine
)
