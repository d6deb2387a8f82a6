"""The views of the papers, by name, each at any side.

Numbers are those of the released code, looked up there (the file is named), or the paper's where there is none. What differs from
every one of them: crops come from the square that the loader keeps, not from the undecoded picture; colours are jittered as
torchvision does it, which the JAX and TensorFlow codes (BYOL, SimCLR) do a little otherwise (`docs/data/views.md`).
"""

from __future__ import annotations

from dataclasses import replace

from multiway.data.blur import tenth_of
from multiway.data.views import CropSpec, ViewsSpec

__all__ = [
    "byol",
    "dino",
    "identity",
    "instdisc",
    "instdisc_cifar",
    "invaspread",
    "mae",
    "moco_v1",
    "moco_v2",
    "moco_v2_cifar",
    "moco_v3",
    "simclr",
    "simclr_cifar",
    "simsiam",
    "swav",
]


def identity(size: int, count: int = 1) -> ViewsSpec:
    """The picture as it is, so many times."""
    return ViewsSpec((CropSpec(size),) * count)


def mae(size: int = 224) -> ViewsSpec:
    """One crop, mirrored or not, colours untouched (He et al. 2022, arXiv 2111.06377; `main_pretrain.py`)."""
    return ViewsSpec((CropSpec(size, scale=(0.2, 1.0), resample="bicubic", flip=0.5),))


def instdisc(size: int = 224) -> ViewsSpec:
    """One view, greyscale before a jitter that every row gets (Wu et al. 2018, arXiv 1805.01978; `main.py`)."""
    kind = CropSpec(size, scale=(0.2, 1.0), flip=0.5, grey_first=True)
    return ViewsSpec((_coloured(kind, 0.4, 0.4, 0.4, 0.4, jitter=1.0),))


def instdisc_cifar(size: int = 32) -> ViewsSpec:
    """InstDisc's on CIFAR-10, where pictures are not mirrored (`cifar.py`)."""
    return ViewsSpec((replace(instdisc(size).views[0], flip=0.0),))


def invaspread(size: int = 32) -> ViewsSpec:
    """Two views, a jitter that every row gets before the greyscale (Ye et al. 2019, arXiv 1904.03436; `demo_seen.py`)."""
    kind = CropSpec(size, scale=(0.2, 1.0), flip=0.5)
    return ViewsSpec((_coloured(kind, 0.4, 0.4, 0.4, 0.4, jitter=1.0),) * 2)


def moco_v1(size: int = 224) -> ViewsSpec:
    """InstDisc's, twice (He et al. 2020, arXiv 1911.05722; `main_moco.py` without `--aug-plus`)."""
    return ViewsSpec(instdisc(size).views * 2)


def moco_v2(size: int = 224) -> ViewsSpec:
    """SimCLR's without the stronger colours (Chen et al. 2020, arXiv 2003.04297; `main_moco.py --aug-plus`)."""
    kind = CropSpec(size, scale=(0.2, 1.0), flip=0.5, blur=0.5)
    return ViewsSpec((_coloured(kind, 0.4, 0.4, 0.4, 0.1),) * 2)


def moco_v2_cifar(size: int = 32) -> ViewsSpec:
    """The authors' demonstration on CIFAR-10: smaller crops, no blur."""
    return ViewsSpec((replace(moco_v2(size).views[0], scale=(0.08, 1.0), blur=0.0),) * 2)


def simsiam(size: int = 224) -> ViewsSpec:
    """MoCo v2's (Chen and He 2021, arXiv 2011.10566; `main_simsiam.py`)."""
    return moco_v2(size)


def simclr(size: int = 224, strength: float = 1.0) -> ViewsSpec:
    """Two views of one kind (Chen et al. 2020, arXiv 2002.05709, appendix A; `data_util.py`).

    Args:
        size: side of both.
        strength: s, of the colour jitter.
    """
    kind = CropSpec(size, scale=(0.08, 1.0), resample="bicubic", flip=0.5, blur=0.5)
    return ViewsSpec((_coloured(kind, 0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength),) * 2)


def simclr_cifar(size: int = 32) -> ViewsSpec:
    """SimCLR's on CIFAR-10: half the strength, no blur (the command in the code's README)."""
    return ViewsSpec((replace(simclr(size, 0.5).views[0], blur=0.0),) * 2)


def byol(size: int = 224, smallest: float = 0.08) -> ViewsSpec:
    """Two kinds: one always blurred; one seldom, and sometimes solarised (Grill et al. 2020, arXiv 2006.07733; `augmentations.py`).

    Args:
        size: side of both.
        smallest: least share of the picture's area that is seen.
    """
    kind = CropSpec(size, scale=(smallest, 1.0), resample="bicubic", flip=0.5)
    kind = _coloured(kind, 0.4, 0.4, 0.2, 0.1)
    return ViewsSpec((replace(kind, blur=1.0), replace(kind, blur=0.1, solarise=0.2)))


def moco_v3(size: int = 224, smallest: float = 0.08) -> ViewsSpec:
    """BYOL's, resampled bilinearly (Chen et al. 2021, arXiv 2104.02057; `main_moco.py`).

    Args:
        size: side of both.
        smallest: 0.08 for a ViT, 0.2 for a ResNet-50 (`CONFIG.md`).
    """
    return ViewsSpec(tuple(replace(kind, resample="bilinear") for kind in byol(size, smallest).views))


def swav(size: int = 224, local: int | None = None, count: int = 6) -> ViewsSpec:
    """Two large crops and several small ones (Caron et al. 2020, arXiv 2006.09882; `multicropdataset.py`).

    Args:
        size: side of the two.
        local: side of the others; 96 at 224, and likewise at other sides, in multiples of 8.
        count: of them. Without any the two reach down to 0.08 of the area, as in the code's run of two crops.
    """
    kind = CropSpec(size, scale=(0.14 if count else 0.08, 1.0), flip=0.5, blur=0.5, kernel=tenth_of(size))
    kind = _coloured(kind, 0.8, 0.8, 0.8, 0.2)
    return ViewsSpec((kind,) * 2 + (replace(kind, size=_local(size, local), scale=(0.05, 0.14)),) * count)


def dino(size: int = 224, local: int | None = None, count: int = 8, border: float = 0.4) -> ViewsSpec:
    """Two global views, unlike each other, and several local ones (Caron et al. 2021, arXiv 2104.14294; `main_dino.py`).

    Args:
        size: side of the two.
        local: side of the others; 96 at 224, and likewise at other sides, in multiples of 8.
        count: of them. Without any the two reach down to 0.14 of the area, as the code's help advises.
        border: area of the least global view and of the greatest local one (README: 0.14 for a ResNet-50).
    """
    scale = (border if count else 0.14, 1.0)
    # One kernel for all: the code's blur, Pillow's, does not depend on the side.
    first, second = (replace(kind, scale=scale, kernel=tenth_of(size)) for kind in byol(size).views)
    others = replace(first, size=_local(size, local), scale=(0.05, border), blur=0.5)
    return ViewsSpec((first, second) + (others,) * count)


def _coloured(
    kind: CropSpec, brightness: float, contrast: float, saturation: float, hue: float, jitter: float = 0.8
) -> CropSpec:
    """With a colour jitter, and the greyscale of one row in five that all these papers share."""
    return replace(
        kind, jitter=jitter, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue, grey=0.2
    )


def _local(size: int, local: int | None) -> int:
    """Side of local views: 96 / 224 of the global ones', in multiples of 8 so that patches fit."""
    return local if local is not None else max(8, 8 * round(size * 96 / 224 / 8))
