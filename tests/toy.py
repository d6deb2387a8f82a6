"""A data set that reads no file, for tests: pictures of a coloured half, and captions that say which."""

import numpy as np
from PIL import Image

from multiway.data.source import Row

COLOURS = {
    "red": (220, 40, 40), "green": (40, 170, 60), "blue": (50, 80, 220), "yellow": (235, 215, 50),
    "black": (20, 20, 20), "white": (245, 245, 245), "purple": (140, 50, 170), "orange": (245, 140, 30),
}  # fmt: skip
PLACES = {"left": (0, 0, 8, 16), "right": (8, 0, 16, 16), "top": (0, 0, 16, 8), "bottom": (0, 8, 16, 16)}


def toy_picture(colour: str, place: str, noise: int = 0) -> Image.Image:
    """16 x 16: one half in a colour, the rest grey, with a little noise so that pictures differ."""
    image = Image.new("RGB", (16, 16), (128, 128, 128))
    image.paste(COLOURS[colour], PLACES[place])
    grain = np.random.default_rng(noise).integers(-6, 7, (16, 16, 3))
    return Image.fromarray(np.clip(np.asarray(image).astype(int) + grain, 0, 255).astype(np.uint8))


class ToySource:
    """Pictures of a coloured half; every caption says which. Satisfies `Source` and reads no file."""

    name, split, fingerprint = "toy", "train", "toy"
    classes = tuple(COLOURS)
    templates = ("{} on one side", "something {}")

    def __init__(self, rows: int = 64) -> None:
        pairs = [(colour, place) for colour in COLOURS for place in PLACES]
        self.pairs = [pairs[i % len(pairs)] for i in range(rows)]

    def __len__(self) -> int:
        return len(self.pairs)

    def row(self, index: int) -> Row:
        colour, place = self.pairs[index]
        label = list(COLOURS).index(colour)
        return Row(
            str(index), index, (f"{colour} on the {place}", f"the {place} is {colour}"), label, f"toy, row {index}"
        )

    def image(self, index: int) -> Image.Image:
        return toy_picture(*self.pairs[index], noise=index)
