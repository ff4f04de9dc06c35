"""The concepts that the papers name, as they print them.

Suriyakumar et al., *Unstable Unlearning*, appendix C and Table 1. The appendix's list of objects also names
two people, by mistake; the eight objects are kept. Its third tercile of celebrities has nine names. MACE's
lists of a hundred are not here: they come from the user's file.
"""

from __future__ import annotations

CONCEPTS: dict[str, tuple[str, ...]] = {
    "paper-celebrities-random": (
        "Amy Winehouse",
        "Elizabeth Taylor",
        "George Takei",
        "Henry Cavill",
        "Jeff Bridges",
        "Jensen Ackles",
        "Jimmy Carter",
        "Kaley Cuoco",
        "Kate Upton",
        "Kristen Stewart",
    ),
    "paper-celebrities-tercile-1": (
        "Elize Du Toit",
        "Heather Marie Mardsen",
        "Soleil Moon Frye",
        "Eniko Mihalik",
        "Mia Wasikowska",
        "Ruslaan Mumtaz",
        "Petra Cubonova",
        "Karin Dor",
        "Kathyrn Erbe",
        "Justine Mattera",
    ),
    "paper-celebrities-tercile-2": (
        "Delta Goodrem",
        "Babs Jongh",
        "Tom Green",
        "Melissa Haro",
        "Ratan Tata",
        "Danielle Darrieux",
        "Eike Batista",
        "Johnny Borrell",
        "Scott Stiner",
        "Amy Davidson",
    ),
    "paper-celebrities-tercile-3": (
        "Tamara Ecclestone",
        "Bryan Cranston",
        "Gregg Sulkin",
        "Sigrid Agren",
        "Ty Pennington",
        "Noemie Lenoir",
        "Jana Ina",
        "Jonathan Tucker",
        "Valerie Bertinelli",
    ),
    "cifar-10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "paper-objects-random": ("trout", "ray", "bee", "rose", "lobster", "girl", "oak tree", "aquarium fish"),
    "paper-objects-tercile-1": (
        "tulip",
        "plain",
        "bowl",
        "pine tree",
        "mountain",
        "house",
        "crab",
        "willow tree",
        "motorcycle",
        "mushroom",
    ),
    "paper-objects-tercile-2": (
        "streetcar",
        "maple tree",
        "seal",
        "orange",
        "cup",
        "flatfish",
        "sunflower",
        "shark",
        "hamster",
        "aquarium fish",
    ),
    "paper-objects-tercile-3": (
        "tiger",
        "tank",
        "turtle",
        "cloud",
        "orchid",
        "road",
        "elephant",
        "rocket",
        "bee",
        "raccoon",
    ),
}
"""What the paper fine-tunes on: random sets (C.1) and CLIP terciles (C.2, Table 1); and the classes that
its objects are told from."""
