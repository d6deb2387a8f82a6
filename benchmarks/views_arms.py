"""What `views_study.py` compares: recipes, each with the options in which it differs from the method as it stands."""

from __future__ import annotations

from multiway.workflows.arms import Arm

__all__ = ["DATA", "KINDS", "NEEDED", "STUDIES", "TUNED", "UNTRAINED"]

DATA = {
    "emoji": ("emoji", "concept"),
    "digits": ("digits", "test"),
    "scenes": ("scenes:easy,objects=1,sizes=large,classes=shape,samples=4000,gallery=1000", "test"),
}
"""By the name that the command line has here: the data, and the split that is measured."""

KINDS = {
    DATA["emoji"][0]: "emoji:classes=subgroup@random",
    DATA["scenes"][0]: "scenes:easy,objects=1,sizes=large,classes=colour,samples=4000,gallery=1000@test",
}
"""Other labels, or another split, of the same data: of the emoji the 99 kinds, where siblings of a picture are in training; what is
measured first, groups of concepts of which nothing is, is harder. Of scenes the colour beside the shape."""

UNTRAINED = (
    Arm("ResNet-18 of 16 channels, untrained", "simclr", ("--lr", "0")),
    Arm("ViT of 4 x 128, untrained", "dino", ("--lr", "0")),
)
"""Networks as they begin: one step of a rate of 0."""


def _both(*options: str) -> tuple[str, ...]:
    """Options of a view, for both of them: `scale 1 1` is `--views.views.0.scale 1 1 --views.views.1.scale 1 1`."""
    return tuple(word for view in "01" for word in (f"--views.views.{view}.{options[0]}", *options[1:]))


def _momentum(value: float) -> tuple[str, ...]:
    """A momentum that stays what it is."""
    return ("--method.momentum", str(value), "--method.momentum-end", str(value))


_UNCROPPED = _both("scale", "1", "1")
_UNCOLOURED = (*_both("jitter", "0"), *_both("grey", "0"))
_UNMIRRORED = _both("flip", "0")
_UNSHARPENED = ("--method.teacher-temperature", "0.1", "--method.warm-temperature", "0.1")
_UNCENTRED = ("--method.no-centring",)

_ALONE = (
    "instdisc", "invaspread", "cmc", "cpc", "simclr", "moco", "moco-v3", "byol", "simsiam", "swav", "dino", "ibot", "mae", "simmim",
    "maskfeat", "denoising-autoencoder",
)  # fmt: skip

_WHITE = ("--view.mean", "1", "1", "1", "--view.std", "0.5", "0.5", "0.5")
NEEDED = (
    Arm("teacher", "clip", ("--method.image.stem", "conv", *_WHITE)),
    Arm("image tokeniser", "vqkd", needs=(("--teacher", "teacher"),)),
)
"""What some arms need, in the order in which it is trained."""

STUDIES: dict[str, tuple[Arm, ...]] = {
    "methods": (*(Arm(name, name) for name in _ALONE), Arm("beit", "beit", needs=(("--codes", "image tokeniser"),))),
    "bridges": tuple(Arm(name, name) for name in ("clip", "slip", "declip")),
    "collapse": (
        Arm("simsiam", "simsiam"),
        Arm("simsiam, gradient through the target", "simsiam", ("--method.no-stop-gradient",)),
        Arm("simsiam, no predictor", "simsiam", ("--method.no-predict",)),
        Arm("simsiam, neither", "simsiam", ("--method.no-stop-gradient", "--method.no-predict")),
        Arm("byol", "byol"),
        Arm("byol, no predictor", "byol", ("--method.no-predict",)),
        Arm("byol, twin is the network", "byol", _momentum(0.0)),
        Arm("byol, neither", "byol", ("--method.no-predict", *_momentum(0.0))),
        Arm("dino", "dino"),
        Arm("dino, no centring", "dino", _UNCENTRED),
        Arm("dino, no sharpening", "dino", _UNSHARPENED),
        Arm("dino, neither", "dino", (*_UNCENTRED, *_UNSHARPENED)),
    ),
    "moco-memory": tuple(Arm(memory, "moco", ("--method.memory", memory)) for memory in ("batch", "bank", "queue")),
    "moco-queue": tuple(
        Arm(f"queue {rows}", "moco", ("--method.queue", str(rows))) for rows in (0, 256, 1024, 2560, 16384)
    ),
    "moco-momentum": tuple(Arm(f"momentum {m:g}", "moco", _momentum(m)) for m in (0.0, 0.9, 0.99, 0.999)),
    "moco-norms": (
        Arm("norms over all rows", "moco"),
        Arm("8 groups, keys shuffled", "moco", ("--method.norm-groups", "8")),
        Arm("8 groups, keys in order", "moco", ("--method.norm-groups", "8", "--method.no-shuffle")),
    ),
    "simclr-views": (
        Arm("all", "simclr"),
        Arm("no crop", "simclr", _UNCROPPED),
        Arm("no colour", "simclr", _UNCOLOURED),
        Arm("no mirror", "simclr", _UNMIRRORED),
        Arm("crop alone", "simclr", (*_UNCOLOURED, *_UNMIRRORED)),
        Arm("colour alone", "simclr", (*_UNCROPPED, *_UNMIRRORED)),
    ),
    "simclr-head": tuple(Arm(f"{n} layers", "simclr", ("--method.projector.layers", str(n))) for n in (1, 2, 3)),
    "simclr-temperature": tuple(
        Arm(f"temperature {tau:g}", "simclr", ("--method.temperature", str(tau))) for tau in (0.05, 0.1, 0.5, 1.0)
    ),
    "mae-ratio": tuple(Arm(f"{ratio:.0%} hidden", "mae", ("--patches.ratio", str(ratio))) for ratio in (0.25, 0.5, 0.75, 0.9)),
    "mae-tokens": tuple(
        Arm(f"mask tokens in the {place}", "mae", ("--method.mask-tokens", place)) for place in ("decoder", "encoder")
    ),
    "mae-decoder": tuple(Arm(f"{n} blocks", "mae", ("--method.decoder.layers", str(n))) for n in (1, 2, 4)),
    "vit-positions": tuple(
        Arm(f"positions: {name}", "dino", ("--lr", "0", *(word for option, value in fields for word in (f"--method.backbone.{option}", value))))
        for name, fields in {
            "none": (("positions", "none"),),
            "learned": (("positions", "learned"),),
            "sines and cosines": (("positions", "sincos"),),
            "relative": (("positions", "none"), ("relative", "shared")),
        }.items()
    ),
}  # fmt: skip

TUNED = ("methods", "mae-ratio", "mae-tokens", "mae-decoder", "vit-positions")
"""Studies whose runs are tuned to classify as well."""
