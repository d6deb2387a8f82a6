"""Makes a torchvision wheel importable beside a CPU-only torch: its C++ library wants CUDA's, and none of it is needed here."""

import sys

import torch


def ensure_torchvision() -> bool:
    """Import torchvision, declaring the operators that its library failed to register; False where it is not installed.

    Has to run before timm, open_clip or lightly are imported. An import that works is left alone.
    """
    try:
        import torchvision
    except ModuleNotFoundError:
        return False
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        ensure_torchvision.library = library  # type: ignore[attr-defined]  # lives as long as the process
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401
    return True
