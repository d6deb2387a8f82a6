"""Makes torchscale 0.3.0 importable beside a current timm: of fairscale, which it asks for, it uses two wrappers when training."""

import importlib.util
import sys
import types
import warnings


def ensure_torchscale() -> bool:
    """Import torchscale's BEiT-3, with a stand-in for fairscale where that is not installed; False where torchscale is not.

    Has to run after `ensure_torchvision`. The stand-in's wrappers refuse to be called: an encoder that recomputes
    activations, or shards itself, needs the real ones.
    """
    if importlib.util.find_spec("torchscale") is None:
        return False
    if importlib.util.find_spec("fairscale") is None:

        def absent(*_: object, **__: object) -> None:
            raise RuntimeError("fairscale is not installed here; set checkpoint_activations=False and fsdp=False")

        package, wrappers = types.ModuleType("fairscale"), types.ModuleType("fairscale.nn")
        wrappers.checkpoint_wrapper = wrappers.wrap = absent
        package.nn = wrappers
        sys.modules |= {"fairscale": package, "fairscale.nn": wrappers}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # timm has moved the function that torchscale takes from it
        import torchscale.model.BEiT3  # noqa: F401
    return True
