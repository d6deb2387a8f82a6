"""How a folder of the `transformers` library draws pictures, as a `ViewSpec`, in and out.

What it says is in `preprocessor_config.json`, or, written by a whole processor of transformers 5, under `image_processor` in
`processor_config.json`, which counts where both are there, as it does for them. A setting that no view has is refused by name: pictures
drawn otherwise are the commonest reason for poor results of downloaded weights, and nothing fails that would tell.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from multiway.batch import ViewSpec
from multiway.hub.file import WeightsError
from multiway.hub.transformers_folder import read_json, write_json

__all__ = ["read_view", "resample_number", "write_view"]

log = logging.getLogger(__name__)

_FILE, _WHOLE = "preprocessor_config.json", "processor_config.json"
_KEEPING = (
    "CLIP",
    "ChineseCLIP",
    "Siglip",
    "Bit",
    "ConvNext",
    "BridgeTower",
    "Vilt",
)  # processors for which a number is the shorter side
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers, as transformers stores them


def read_view(folder: Path, default: ViewSpec, *, squeezes: bool = False, patch: int = 0) -> ViewSpec:
    """How the folder's processor draws pictures; `default` for what it leaves open, or where there is none.

    Args:
        folder: in their layout.
        default: its size is the model's.
        squeezes: whether their processor squeezes pictures into the square where `size` is a number, if the file does not name it.
        patch: pixels of a patch, for a model that sees pictures at any size of whole patches; 0 for the one size.

    Raises:
        WeightsError: if it draws pictures at another size than the model sees, or in a way that no view has.
    """
    file, theirs = _stated(folder)
    if not theirs:
        return default
    if theirs.get("do_resize") is False:
        raise WeightsError(
            f"{file} leaves pictures at their own size (do_resize=false), and pictures here have one; write do_resize=true there and the "
            f"size that was meant, {default.size} for this model"
        )
    try:
        if "crop_pct" in theirs:
            return _coloured(file, theirs, _by_share(file, theirs, default))
        return _coloured(file, theirs, _placed(file, theirs, default, squeezes, patch))
    except (TypeError, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{file} says no way to draw a picture: {error}") from error


def _stated(folder: Path) -> tuple[Path, Mapping[str, Any]]:
    """(the file, what it says of pictures)."""
    whole = folder / _WHOLE
    if whole.is_file() and isinstance(inside := read_json(whole).get("image_processor"), Mapping):
        return whole, inside
    file = folder / _FILE
    return file, read_json(file) if file.is_file() else {}


def _placed(file: Path, theirs: Mapping[str, Any], default: ViewSpec, squeezes: bool, patch: int) -> ViewSpec:
    """Size, crop and what the shorter side is resized to."""
    # One side given, the aspect ratio is kept and the middle cut out; both given, it is not.
    stated = theirs.get("size", default.size)
    squeezed = "shortest_edge" not in stated if isinstance(stated, Mapping) else _squeezes(theirs, squeezes)
    size, cut = _side(file, "size", stated), _side(file, "crop_size", theirs.get("crop_size") or default.size)
    cuts = bool(theirs.get("do_center_crop", not squeezed))
    squash = squeezed and not (cuts and cut < size)  # squeezed and cut to the same size is squeezed
    if squeezed and not squash:
        log.warning(
            "%s squeezes pictures to %d pixels and cuts out %d; here the aspect ratio is kept, and only square pictures are drawn alike",
            file, size, cut,
        )  # fmt: skip
    if patch and squash and size % patch == 0:
        default = replace(default, size=size)
    elif patch and not squash and cuts and size >= cut and cut % patch == 0:
        default = replace(default, size=cut, shortest=size if size > cut else None)
        size = cut
    elif not squash and cut == default.size and size > cut:
        default, size = replace(default, crop="center", shortest=size), cut
    if size != default.size or (not squash and cut != default.size):
        raise WeightsError(
            f"{file} resizes to {size} and cuts {cut} for a model of {default.size}; only equal sizes are supported"
        )
    return replace(default, crop="squash" if squash else "center", shortest=None if squash else default.shortest)


def _squeezes(theirs: Mapping[str, Any], default: bool) -> bool:
    """Whether a processor of this name takes a number for both sides."""
    name = str(theirs.get("image_processor_type") or theirs.get("feature_extractor_type") or "")
    return default if not name else not name.startswith(_KEEPING)


def _side(file: Path, name: str, stated: Any) -> int:
    """Of a square, or the shorter one."""
    sides = [stated]
    if isinstance(stated, Mapping):
        one = stated.get("shortest_edge")
        sides = [one] if one is not None else [stated.get("height"), stated.get("width")]
    if any(type(each) is not int or each < 1 for each in sides) or len(set(sides)) > 1:
        raise WeightsError(f"{file} has {name}={stated!r}; expected pixels of a square, or of the shorter side")
    return sides[0]


def _by_share(file: Path, theirs: Mapping[str, Any], default: ViewSpec) -> ViewSpec:
    """ConvNeXt's way: below 384 pixels a share of the shorter side is cut out, from there on pictures are squeezed."""
    size = _side(file, "size", theirs.get("size", default.size))
    small = size < 384
    return replace(
        default,
        size=size,
        crop="center" if small else "squash",
        shortest=max(size, int(size / theirs["crop_pct"])) if small else None,
    )


def _coloured(file: Path, theirs: Mapping[str, Any], view: ViewSpec) -> ViewSpec:
    """Mean, deviation and filter. What they scale otherwise than from bytes to [0, 1] is in mean and deviation here."""
    mean, std = theirs.get("image_mean", view.mean), theirs.get("image_std", view.std)
    if theirs.get("do_normalize") is False:
        mean, std = (0.0,) * 3, (1.0,) * 3
    left = [name for name in ("image_mean", "image_std", "resample") if name not in theirs]
    if left:
        log.warning("%s says nothing of %s: taken as %s, %s, %s", file, ", ".join(left), mean, std, view.resample)
    factor = 1.0 if theirs.get("do_rescale") is False else float(theirs.get("rescale_factor", 1 / 255))
    scale = factor * 255
    mean, std = _colours(file, "image_mean", mean, scale), _colours(file, "image_std", std, scale)
    number = theirs.get("resample", resample_number(view))
    if number not in _RESAMPLE or not all(std):
        raise WeightsError(
            f"{file} has resample={number!r} and image_std={std}; expected one of "
            f"{', '.join(f'{each} ({name})' for each, name in _RESAMPLE.items())}, and deviations above 0"
        )
    return replace(view, mean=mean, std=std, resample=_RESAMPLE[number])  # type: ignore[arg-type]


def _colours(file: Path, name: str, stated: Any, scale: float) -> tuple[float, float, float]:
    three = [stated] * 3 if isinstance(stated, int | float) else list(stated)
    if len(three) != 3:
        raise WeightsError(f"{file} has {name}={stated!r}; expected a number for each of three colours")
    red, green, blue = (float(each) if math.isclose(scale, 1.0) else float(each) / scale for each in three)
    return red, green, blue


def resample_number(view: ViewSpec) -> int:
    """Pillow's number of the view's filter, as transformers stores it."""
    return next(number for number, name in _RESAMPLE.items() if name == view.resample)


def write_view(folder: Path, view: ViewSpec, processor: str = "") -> None:
    """The `preprocessor_config.json` by which theirs draws pictures as the view does.

    None of theirs fits a picture on a background: for a view that does (`crop="pad"`) the middle is cut out, which is the same of
    square pictures. `workflows/model_card.py` says so to whoever converts.

    Args:
        folder: in their layout.
        view: of the model.
        processor: their class; by default one for pictures alone that can do it.
    """
    side = {"height": view.size, "width": view.size}
    cut = view.crop != "squash"
    how: dict[str, Any] = {
        "size": {"shortest_edge": view.shortest or view.size} if cut else side,
        "do_center_crop": cut,
    }
    if cut:
        how["crop_size"] = side
    write_json(
        folder / _FILE,
        {"image_processor_type": processor or ("BitImageProcessor" if cut else "ViTImageProcessor"), **how,
         "do_convert_rgb": True, "do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
         "image_mean": list(view.mean), "image_std": list(view.std), "resample": resample_number(view)},
    )  # fmt: skip
