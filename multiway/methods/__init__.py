"""One published method per file. `METHODS` is the one list of them: name -> where its class is.

A plain table, so that listing the methods imports none of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

from multiway.methods.method import Method

METHODS: dict[str, str] = {
    "albef": "multiway.methods.albef:Albef",
    "albef-two": "multiway.methods.two_pictures:AlbefTwo",
    "albef-ta": "multiway.methods.text_assignment:TextAssignment",
    "bert": "multiway.methods.bert:Bert",
    "blip": "multiway.methods.blip:Blip",
    "blip-two": "multiway.methods.two_pictures:BlipTwo",
    "clip": "multiway.methods.clip:Clip",
    "slip": "multiway.methods.slip:Slip",
    "declip": "multiway.methods.declip:DeClip",
    "coca": "multiway.methods.coca:Coca",
    "gpt": "multiway.methods.gpt:Gpt",
    "simvlm": "multiway.methods.simvlm:Simvlm",
    "filip": "multiway.methods.filip:Filip",
    "siglip": "multiway.methods.siglip:Siglip",
    "vlmo": "multiway.methods.vlmo:Vlmo",
    "vilt": "multiway.methods.vilt:Vilt",
    "meter": "multiway.methods.meter:Meter",
    "vqkd": "multiway.methods.vqkd:Vqkd",
    "beit3": "multiway.methods.beit3:Beit3",
    "simclr": "multiway.methods.simclr:SimClr",
    "simsiam": "multiway.methods.simsiam:SimSiam",
    "byol": "multiway.methods.byol:Byol",
    "moco": "multiway.methods.moco:Moco",
    "moco-v3": "multiway.methods.moco_v3:MocoV3",
    "swav": "multiway.methods.swav:Swav",
    "dino": "multiway.methods.dino:Dino",
    "ibot": "multiway.methods.ibot:Ibot",
    "instdisc": "multiway.methods.instdisc:InstDisc",
    "invaspread": "multiway.methods.invaspread:InvaSpread",
    "cmc": "multiway.methods.cmc:Cmc",
    "cpc": "multiway.methods.cpc:Cpc",
    "mae": "multiway.methods.mae:Mae",
    "simmim": "multiway.methods.simmim:SimMim",
    "maskfeat": "multiway.methods.maskfeat:MaskFeat",
    "denoising-autoencoder": "multiway.methods.denoising:DenoisingAutoencoder",
    "beit": "multiway.methods.beit:Beit",
    "picture-encoder": "multiway.methods.picture_encoder:PictureEncoder",
    "finetune": "multiway.methods.finetune:FineTune",
    "answer-writer": "multiway.methods.answer_writer:AnswerWriter",
    "classify": "multiway.methods.classifier:PictureClassifier",
}


_TUNED = ("finetune", "answer-writer", "classify")  # heads on other methods


def methods_with(needs: Iterable[str]) -> tuple[str, ...]:
    """Names of the published methods whose classes have all of these abilities; a method's config may still leave some out."""
    wanted = tuple(needs)
    own = (name for name in METHODS if name not in _TUNED)
    return tuple(name for name in own if all(hasattr(method_class(name), need) for need in wanted))


def method_class(name: str) -> type[Method]:
    """The class of a method.

    Raises:
        KeyError: for an unknown name, with the names that exist.
    """
    if name not in METHODS:
        raise KeyError(f"there is no method `{name}`; there are: {', '.join(sorted(METHODS))}")
    module, _, attribute = METHODS[name].partition(":")
    return getattr(import_module(module), attribute)  # type: ignore[no-any-return]
