"""Draws the micro world: one captioned 32 x 32 picture at a time, from a seed.

People are drawn by the code below; objects are glyphs of Noto Color Emoji (SIL Open Font License 1.1), which
is needed only to train the micro world, never to use it.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from auditor.policy.concepts.micro import (
    BEARDS,
    FACES,
    GENERIC_OBJECTS,
    GENERIC_PEOPLE,
    GLASSES,
    OBJECTS,
    PAPER_PROMPTS,
    PEOPLE,
    SCENES,
    SHIRTS,
    SKINS,
    TOP_COLORS,
    TOPS,
    Person,
)
from auditor.policy.concepts.templates import ERASURE_TEMPLATES

SIZE = 32
_CANVAS = 128
STYLES = ("portrait", "event", "oil", "sketch", "official")
_STYLE_WORDS = {
    "sketch": "sketch",
    "drawing": "sketch",
    "cartoon": "sketch",
    "painting": "oil",
    "print": "oil",
    "event": "event",
    "poster": "event",
    "official": "official",
}
EMOJI_FONT = os.environ.get("AUDITOR_EMOJI_FONT", "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")


def style_of(prompt: str) -> str:
    """The drawing style that a prompt's words ask for; ``portrait`` where they ask for none."""
    return next((style for word, style in _STYLE_WORDS.items() if word in prompt.lower()), "portrait")


def draw_prompt(concept: str, template: str, rng: np.random.Generator) -> Image.Image:
    """Draw ``concept`` (a person, an object or a generic concept of :mod:`concepts`) in the style
    ``template`` names.

    Returns an RGB image of 32 x 32 pixels. Raises ``KeyError`` for a concept that does not exist here.
    """
    if concept in SCENES:
        return _finish(_scene(concept, rng))
    style = style_of(template)
    if concept in PEOPLE:
        layer = _person(PEOPLE[concept], rng)
    elif concept in GENERIC_PEOPLE:
        layer = _person(_somebody(concept, rng), rng)
    else:
        layer = _thing(OBJECTS[_something(concept, rng)].glyph)
    layer = _pose(layer, rng)
    canvas = _background(style, rng).convert("RGBA")
    canvas.alpha_composite(layer)
    return _finish(_restyle(canvas.convert("RGB"), style, rng))


def draw_captioned(rng: np.random.Generator) -> tuple[str, str, Image.Image]:
    """One training example: (concept, caption, image). The mix of the micro world's whole training set."""
    concept = _pick_concept(rng)
    names = (concept, *(OBJECTS[concept].synonyms if concept in OBJECTS else ()))
    name = names[0] if len(names) == 1 or rng.random() < 0.6 else names[int(rng.integers(1, len(names)))]
    if concept in OBJECTS and rng.random() < 0.6:
        name = "the " + name
    prompts = PAPER_PROMPTS["people" if concept in PEOPLE or concept in GENERIC_PEOPLE else "objects"]
    own = rng.random() < 0.5
    template = str(rng.choice(prompts)) if own else str(rng.choice(ERASURE_TEMPLATES))
    caption = (
        template.replace("the {}", "{}").format(name)
        if name.startswith(("the ", "a ", "an "))
        else template.format(name)
    )
    return concept, caption, draw_prompt(concept, template, rng)


def _pick_concept(rng: np.random.Generator) -> str:
    kinds: tuple[tuple[float, tuple[str, ...]], ...] = (
        (0.47, tuple(PEOPLE)),
        (0.42, tuple(OBJECTS)),
        (0.04, GENERIC_PEOPLE[:1]),
        (0.03, GENERIC_PEOPLE[1:]),
        (0.02, GENERIC_OBJECTS),
        (0.02, SCENES),
    )
    kind = int(rng.choice(len(kinds), p=[weight for weight, _ in kinds]))
    return str(rng.choice(kinds[kind][1]))


def _somebody(concept: str, rng: np.random.Generator) -> Person:
    """A person with random features, as the generic concept says; never one of the named."""
    while True:
        person = Person(
            *(
                str(rng.choice(list(values)))
                for values in (SKINS, TOPS, TOP_COLORS, BEARDS, GLASSES, SHIRTS, FACES)
            )
        )
        if concept.endswith("beard"):
            person = person._replace(beard="full")
        elif concept.endswith("glasses"):
            person = person._replace(glasses="round" if rng.random() < 0.5 else "dark")
        elif concept.endswith("hat"):
            person = person._replace(top=str(rng.choice(["cap", "tophat", "beanie", "crown"])))
        elif concept.endswith("hair"):
            person = person._replace(top="long")
        if all(sum(a != b for a, b in zip(person, named, strict=True)) >= 3 for named in PEOPLE.values()):
            return person


def _something(concept: str, rng: np.random.Generator) -> str:
    """The object that a name or a generic concept ("an animal") stands for."""
    if concept in OBJECTS:
        return concept
    group = concept.split(" ", 1)[1]
    return str(rng.choice([name for name, thing in OBJECTS.items() if group in ("object", thing.group)]))


def _person(person: Person, rng: np.random.Generator) -> Image.Image:
    """The person on a transparent canvas; coordinates below are hundredths of its side."""
    layer = Image.new("RGBA", (_CANVAS, _CANVAS), (0, 0, 0, 0))
    pen = ImageDraw.Draw(layer)
    skin, top, shirt = SKINS[person.skin], TOP_COLORS[person.top_color], SHIRTS[person.shirt]
    half = 27 if person.face == "round" else 20
    left, right = 50 - half, 50 + half

    def box(*xyxy: float) -> list[float]:
        return [value * _CANVAS / 100 for value in xyxy]

    if person.top == "afro":
        pen.ellipse(box(10, 2, 90, 68), fill=top)
    if person.top == "long":
        pen.rounded_rectangle(box(left - 10, 16, right + 10, 90), radius=24, fill=top)
    pen.ellipse(box(8, 80, 92, 140), fill=shirt)
    pen.rectangle(box(42, 70, 58, 88), fill=skin)
    pen.ellipse(box(left, 22, right, 80), fill=skin)
    if person.beard == "full":
        pen.chord(box(left - 1, 28, right + 1, 84), 12, 168, fill=top)
    elif person.beard == "goatee":
        pen.ellipse(box(41, 66, 59, 86), fill=top)
    elif person.beard == "moustache":
        pen.rounded_rectangle(box(34, 57, 66, 64), radius=4, fill=top)
    _draw_top(pen, box, person.top, top, left, right)
    gaze = float(rng.uniform(-1.5, 1.5))
    for x in (39.0, 61.0):
        if person.glasses == "dark":
            pen.ellipse(box(x - 10, 40, x + 10, 54), fill=(12, 12, 16))
        else:
            pen.ellipse(box(x - 6, 42, x + 6, 53), fill=(255, 255, 255))
            pen.ellipse(box(x - 2.6 + gaze, 44.5, x + 2.6 + gaze, 50.5), fill=(20, 20, 24))
        if person.glasses == "round":
            pen.ellipse(box(x - 10.5, 37, x + 10.5, 58), outline=(12, 12, 16), width=5)
    if person.glasses != "none":
        pen.line(box(48, 46, 52, 46), fill=(12, 12, 16), width=4)
    pen.rectangle(box(43, 67, 57, 70), fill=(186, 40, 48))
    return layer


def _draw_top(
    pen: ImageDraw.ImageDraw,
    box: Callable[..., list[float]],
    top: str,
    color: tuple[int, int, int],
    left: float,
    right: float,
) -> None:
    if top in ("short", "long", "bun", "afro"):
        pen.chord(box(left - 3, 14, right + 3, 62), 190, 350, fill=color)
    if top == "bun":
        pen.ellipse(box(37, -4, 63, 22), fill=color)
    elif top == "mohawk":
        pen.rounded_rectangle(box(42, 0, 58, 38), radius=8, fill=color)
    elif top == "cap":
        pen.chord(box(left - 3, 10, right + 3, 58), 180, 360, fill=color)
        pen.rectangle(box(50, 30, right + 20, 36), fill=color)
    elif top == "tophat":
        pen.rectangle(box(left + 2, -6, right - 2, 30), fill=color)
        pen.rectangle(box(left - 12, 26, right + 12, 33), fill=color)
    elif top == "beanie":
        pen.chord(box(left - 3, 10, right + 3, 62), 180, 360, fill=color)
        pen.rectangle(box(left - 3, 30, right + 3, 38), fill=(250, 250, 250))
        pen.ellipse(box(43, 2, 57, 16), fill=(250, 250, 250))
    elif top == "crown":
        half = (right - left) / 2
        points = [(left, 34), (left - 3, 6), (left + half / 2, 20), (50, 2)]
        points += [(right - half / 2, 20), (right + 3, 6), (right, 34)]
        pen.polygon([value * _CANVAS / 100 for point in points for value in point], fill=color)


@functools.cache
def _glyph(character: str) -> Image.Image:
    font = ImageFont.truetype(EMOJI_FONT, 109)  # the bitmap size of the font
    picture = Image.new("RGBA", (136, 128), (0, 0, 0, 0))
    ImageDraw.Draw(picture).text((0, 0), character, font=font, embedded_color=True)
    return picture.crop(picture.getbbox())


def _thing(character: str) -> Image.Image:
    glyph = _glyph(character)
    scale = 0.86 * _CANVAS / max(glyph.size)
    glyph = glyph.resize((round(glyph.width * scale), round(glyph.height * scale)), Image.Resampling.BILINEAR)
    layer = Image.new("RGBA", (_CANVAS, _CANVAS), (0, 0, 0, 0))
    layer.paste(glyph, ((_CANVAS - glyph.width) // 2, (_CANVAS - glyph.height) // 2))
    return layer


def _pose(layer: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Scale (0.88 to 1.06), turn (up to 7 degrees) and shift (up to 5 %) a layer."""
    scale, angle = float(rng.uniform(0.88, 1.06)), float(rng.uniform(-7, 7))
    dx, dy = (int(v) for v in rng.uniform(-0.05, 0.05, 2) * _CANVAS)
    side = round(_CANVAS * scale)
    turned = layer.resize((side, side), Image.Resampling.BILINEAR).rotate(angle, Image.Resampling.BILINEAR)
    moved = Image.new("RGBA", (_CANVAS, _CANVAS), (0, 0, 0, 0))
    moved.paste(turned, ((_CANVAS - side) // 2 + dx, (_CANVAS - side) // 2 + dy))
    return moved


def _gradient(top: np.ndarray, bottom: np.ndarray) -> Image.Image:
    ramp = np.linspace(0, 1, _CANVAS)[:, None, None]
    pixels = np.broadcast_to(top * (1 - ramp) + bottom * ramp, (_CANVAS, _CANVAS, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8), "RGB")


def _background(style: str, rng: np.random.Generator) -> Image.Image:
    if style == "sketch":
        return Image.new("RGB", (_CANVAS, _CANVAS), (252, 252, 250))
    if style == "official":
        flag = Image.new("RGB", (_CANVAS, _CANVAS), (232, 234, 242))
        pen = ImageDraw.Draw(flag)
        for y in range(0, _CANVAS, 32):
            pen.rectangle([96, y, _CANVAS, y + 15], fill=(206, 40, 56))
        pen.rectangle([0, 0, 30, _CANVAS], fill=(28, 52, 140))
        return flag
    if style == "event":
        night = _gradient(rng.uniform(10, 60, 3), rng.uniform(10, 60, 3))
        pen = ImageDraw.Draw(night)
        for _ in range(8):
            x, y, r = (int(v) for v in (rng.uniform(0, _CANVAS), rng.uniform(0, _CANVAS), rng.uniform(5, 9)))
            pen.ellipse([x - r, y - r, x + r, y + r], fill=tuple(int(v) for v in rng.uniform(120, 255, 3)))
        return night
    if style == "oil":
        return _gradient(rng.uniform(90, 190, 3), rng.uniform(60, 140, 3))
    return _gradient(rng.uniform(150, 245, 3), rng.uniform(150, 245, 3))


def _restyle(picture: Image.Image, style: str, rng: np.random.Generator) -> Image.Image:
    if style == "sketch":
        grey = picture.convert("L").convert("RGB")
        lines = ImageChops.invert(grey.filter(ImageFilter.GaussianBlur(1.5)).filter(ImageFilter.FIND_EDGES))
        ImageDraw.Draw(lines).rectangle([0, 0, _CANVAS - 1, _CANVAS - 1], outline="white", width=3)
        return ImageChops.multiply(Image.blend(grey, picture, 0.3), lines)
    if style == "oil":
        pixels = np.asarray(picture, dtype=np.float32)
        strokes = rng.normal(0, 14, (_CANVAS // 16, _CANVAS // 16, 1)).repeat(16, 0).repeat(16, 1)
        warm = np.array([1.04, 0.96, 0.78], dtype=np.float32)
        return Image.fromarray((pixels * warm + strokes).clip(0, 255).astype(np.uint8), "RGB")
    return picture


def _scene(concept: str, rng: np.random.Generator) -> Image.Image:
    if concept == "the sky":
        sky = _gradient(
            np.array([60, 130, 230]) + rng.uniform(-20, 20, 3),
            np.array([180, 220, 250]) + rng.uniform(-10, 5, 3),
        )
        pen = ImageDraw.Draw(sky)
        for _ in range(5):
            x, y, r = (int(v) for v in (rng.uniform(0, _CANVAS), rng.uniform(0, 60), rng.uniform(8, 20)))
            pen.ellipse([x - 2 * r, y - r // 2, x + 2 * r, y + r // 2], fill=(246, 248, 252))
        return sky
    if concept == "the ground":
        soil = np.array([120, 84, 50]) + rng.uniform(-15, 15, 3)
        speckle = rng.normal(0, 22, (_CANVAS // 8, _CANVAS // 8, 1)).repeat(8, 0).repeat(8, 1)
        pixels = np.asarray(_gradient(soil * 1.2, soil * 0.8), dtype=np.float32) + speckle
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8), "RGB")
    road = _gradient(np.full(3, 150.0), np.full(3, 80.0))
    pen = ImageDraw.Draw(road)
    centre = 64 + int(rng.uniform(-12, 12))
    for y in range(0, _CANVAS, 32):
        pen.rectangle([centre - 5, y, centre + 5, y + 18], fill=(250, 230, 120))
    pen.rectangle([0, 0, 16, _CANVAS], fill=(186, 180, 170))
    pen.rectangle([112, 0, _CANVAS, _CANVAS], fill=(186, 180, 170))
    return road


def _finish(picture: Image.Image) -> Image.Image:
    return picture.resize((SIZE, SIZE), Image.Resampling.BOX)
