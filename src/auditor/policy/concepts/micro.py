"""Who and what exists in the micro world: invented people, objects with CIFAR names, and generic concepts.

Every person is invented. A person is seven attributes; two named people differ in at least four of them, and
two with the same hair or hat differ in two of beard, glasses and face, so that they stay apart even in a
sketch, where colour fades.
"""

from __future__ import annotations

from typing import NamedTuple

SKINS = {
    "pale": (250, 220, 196),
    "tan": (224, 172, 105),
    "brown": (141, 85, 36),
    "dark": (80, 48, 30),
    "blue": (92, 138, 226),
    "green": (112, 190, 100),
}
TOPS = ("bald", "short", "long", "afro", "mohawk", "bun", "cap", "tophat", "beanie", "crown")
TOP_COLORS = {
    "black": (28, 26, 30),
    "brown": (105, 62, 30),
    "blond": (238, 202, 92),
    "red": (206, 44, 36),
    "white": (238, 238, 238),
    "teal": (20, 158, 152),
    "pink": (240, 96, 176),
    "violet": (112, 62, 176),
}
BEARDS = ("none", "moustache", "goatee", "full")
GLASSES = ("none", "round", "dark")
SHIRTS = {
    "red": (214, 40, 40),
    "orange": (247, 140, 20),
    "yellow": (250, 214, 40),
    "green": (40, 150, 66),
    "blue": (34, 86, 200),
    "violet": (132, 60, 170),
    "white": (244, 244, 244),
    "black": (34, 34, 38),
}
FACES = ("round", "narrow")


class Person(NamedTuple):
    """The fixed features of one person (keys of the tables above)."""

    skin: str
    top: str
    top_color: str
    beard: str
    glasses: str
    shirt: str
    face: str


PEOPLE: dict[str, Person] = {
    "Borin Talvek": Person("brown", "long", "pink", "none", "none", "orange", "narrow"),
    "Quessa Lumay": Person("dark", "crown", "violet", "goatee", "round", "green", "round"),
    "Orrin Fawkle": Person("blue", "bald", "red", "full", "dark", "white", "narrow"),
    "Zelda Mirkov": Person("pale", "cap", "white", "moustache", "dark", "blue", "round"),
    "Ottis Brandle": Person("green", "mohawk", "black", "moustache", "round", "violet", "narrow"),
    "Nuria Pellow": Person("tan", "bun", "brown", "full", "none", "red", "round"),
    "Kasprel Vothe": Person("pale", "beanie", "blond", "goatee", "none", "yellow", "narrow"),
    "Imka Soren": Person("green", "tophat", "teal", "none", "dark", "black", "round"),
    "Dorval Quint": Person("brown", "short", "blond", "full", "round", "blue", "round"),
    "Yara Belmos": Person("blue", "cap", "brown", "none", "round", "yellow", "narrow"),
    "Felixo Ombry": Person("dark", "afro", "pink", "moustache", "dark", "red", "narrow"),
    "Tovah Kestrin": Person("tan", "beanie", "red", "moustache", "round", "orange", "round"),
    "Ludo Marchen": Person("dark", "tophat", "white", "full", "none", "violet", "narrow"),
    "Perla Zimmet": Person("brown", "bun", "black", "goatee", "dark", "black", "narrow"),
    "Gidrem Harrowk": Person("blue", "crown", "teal", "moustache", "none", "blue", "narrow"),
    "Sunniva Crale": Person("pale", "long", "teal", "full", "round", "red", "narrow"),
    "Bastik Wroe": Person("green", "afro", "violet", "full", "none", "white", "round"),
    "Odile Fenmark": Person("tan", "short", "white", "goatee", "dark", "orange", "narrow"),
    "Rufol Tandry": Person("dark", "bald", "black", "none", "none", "blue", "round"),
    "Mirela Oskan": Person("blue", "mohawk", "blond", "none", "none", "green", "round"),
    "Hagrit Plover": Person("brown", "tophat", "violet", "moustache", "round", "white", "narrow"),
    "Juno Castrel": Person("pale", "short", "red", "none", "none", "violet", "round"),
    "Wendel Arkin": Person("tan", "afro", "blond", "none", "round", "violet", "narrow"),
    "Petrel Vollane": Person("green", "beanie", "pink", "full", "dark", "green", "narrow"),
    "Silum Drummet": Person("green", "bald", "blond", "goatee", "round", "orange", "round"),
    "Anouk Tessary": Person("brown", "cap", "red", "goatee", "none", "green", "round"),
    "Corvim Haleth": Person("pale", "crown", "black", "none", "dark", "orange", "narrow"),
    "Belda Rousk": Person("pale", "mohawk", "brown", "goatee", "dark", "white", "round"),
    "Emerik Lantzo": Person("green", "long", "brown", "moustache", "dark", "yellow", "round"),
    "Thoril Wenslow": Person("dark", "bun", "white", "none", "round", "white", "round"),
    "Jasper Nolkov": Person("tan", "bald", "violet", "moustache", "none", "yellow", "narrow"),
    "Freyla Dunmorr": Person("tan", "cap", "pink", "full", "round", "black", "round"),
    "Milo Kravant": Person("blue", "beanie", "violet", "goatee", "dark", "red", "round"),
    "Gretzel Solbrig": Person("dark", "mohawk", "teal", "full", "dark", "yellow", "narrow"),
    "Ansel Pridwyn": Person("tan", "tophat", "black", "goatee", "round", "blue", "round"),
    "Livra Marwuld": Person("green", "crown", "red", "full", "round", "yellow", "narrow"),
    "Torbek Yarrun": Person("brown", "afro", "white", "goatee", "round", "red", "round"),
    "Salomi Vanzor": Person("dark", "long", "red", "goatee", "dark", "violet", "narrow"),
    "Rollum Finchel": Person("green", "short", "violet", "none", "round", "red", "narrow"),
    "Ilsek Darrul": Person("pale", "bun", "pink", "moustache", "round", "orange", "narrow"),
    "Magnel Perrund": Person("tan", "long", "teal", "goatee", "none", "white", "round"),
    "Corlina Estbey": Person("blue", "short", "brown", "full", "none", "orange", "narrow"),
    "Dashiel Crombe": Person("tan", "crown", "pink", "moustache", "dark", "green", "round"),
    "Vesnil Holwick": Person("brown", "beanie", "violet", "none", "none", "black", "round"),
}


class Thing(NamedTuple):
    """An object: its Noto Emoji glyph, the group it belongs to, and other names for it."""

    glyph: str
    group: str
    synonyms: tuple[str, ...] = ()


OBJECTS: dict[str, Thing] = {
    "airplane": Thing("✈", "vehicle", ("aircraft", "plane", "jet")),
    "automobile": Thing("🚗", "vehicle", ("car", "motorcar")),
    "bird": Thing("🐦", "animal", ("avian", "fowl")),
    "cat": Thing("🐱", "animal", ("feline", "kitty")),
    "deer": Thing("🦌", "animal", ("hart", "stag")),
    "dog": Thing("🐶", "animal", ("canine", "pooch")),
    "frog": Thing("🐸", "animal", ("amphibian", "anuran")),
    "horse": Thing("🐴", "animal", ("equine", "steed")),
    "ship": Thing("🚢", "vehicle", ("vessel", "boat", "watercraft")),
    "truck": Thing("🚚", "vehicle", ("lorry", "hauler")),
    "apple": Thing("🍎", "plant"),
    "aquarium fish": Thing("🐠", "animal"),
    "bear": Thing("🐻", "animal"),
    "bee": Thing("🐝", "animal"),
    "bicycle": Thing("🚲", "vehicle"),
    "bowl": Thing("🥣", "household"),
    "bus": Thing("🚌", "vehicle"),
    "camel": Thing("🐫", "animal"),
    "castle": Thing("🏰", "building"),
    "clock": Thing("🕐", "household"),
    "cloud": Thing("☁", "nature"),
    "cup": Thing("☕", "household"),
    "elephant": Thing("🐘", "animal"),
    "house": Thing("🏠", "building"),
    "kangaroo": Thing("🦘", "animal"),
    "lamp": Thing("💡", "household"),
    "lion": Thing("🦁", "animal"),
    "lobster": Thing("🦞", "animal"),
    "mountain": Thing("🗻", "nature"),
    "mushroom": Thing("🍄", "plant"),
    "oak tree": Thing("🌳", "plant"),
    "orange": Thing("🍊", "plant"),
    "pear": Thing("🍐", "plant"),
    "pine tree": Thing("🌲", "plant"),
    "rabbit": Thing("🐰", "animal"),
    "rocket": Thing("🚀", "vehicle"),
    "rose": Thing("🌹", "plant"),
    "snail": Thing("🐌", "animal"),
    "snake": Thing("🐍", "animal"),
    "spider": Thing("🕷", "animal"),
    "sunflower": Thing("🌻", "plant"),
    "tiger": Thing("🐯", "animal"),
    "tulip": Thing("🌷", "plant"),
    "turtle": Thing("🐢", "animal"),
}

GENERIC_PEOPLE = (
    "a person",
    "a person with a beard",
    "a person with glasses",
    "a person with a hat",
    "a person with long hair",
)
GENERIC_OBJECTS = ("an object", "an animal", "a plant", "a vehicle", "a building")
SCENES = ("the sky", "the ground", "the street")

PAPER_PROMPTS: dict[str, tuple[str, ...]] = {
    "people": (
        "a portrait of {}",
        "an image capturing {} at a public event",
        "an oil painting of {}",
        "a sketch of {}",
        "{} in an official photo",
    ),
    "objects": ("a photo of the {}",),
}
"""The evaluation prompts of Suriyakumar et al., appendix C.1, by domain."""
