"""Between two sets of weights: what fine-tuning taught, without all that it made forgotten.

M. Wortsman, G. Ilharco, J. W. Kim, M. Li, S. Kornblith, R. Roelofs, R. Gontijo-Lopes, H. Hajishirzi, A. Farhadi, H. Namkoong, L.
Schmidt: Robust fine-tuning of zero-shot models (WiSE-FT), CVPR 2022, arXiv 2109.01903, equation 1:

    theta = (1 - alpha) theta_before + alpha theta_after

of every number that both have. A head that fine-tuning added is taken as it is; changes of low rank are put into the weights first.
"""

from __future__ import annotations

import copy

import torch

from multiway.config import differences
from multiway.hub.file import WeightsError
from multiway.hub.model import Model
from multiway.hub.origin import joined, or_unknown
from multiway.methods.kept import merged

__all__ = ["average"]


@torch.no_grad()
def average(
    before: Model, after: Model, alpha: float, names: tuple[str, str] = ("what was tuned", "what came of it")
) -> Model:
    """A model between two.

    Args:
        before: what fine-tuning began from.
        after: what it ended with; the same method, or one with a task's head on it.
        alpha: share of the second, in [0, 1].
        names: of the two, for the origin of the new one.

    Returns:
        A model like `after`; neither of the two is changed. Its origin is that of both, and the shares.

    Raises:
        WeightsError: if they are not the same method with the same sizes.
        ValueError: for another alpha.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha is {alpha}; expected a share from 0, all of the first, to 1, all of the second")
    first, mixed = merged(copy.deepcopy(before.method)).starting, merged(copy.deepcopy(after.method))
    second = mixed.starting
    unlike = differences(first.config_json(), second.config_json())
    if first.name != second.name or unlike:
        why = f"{first.name} and {second.name}" if first.name != second.name else "; ".join(map(str, unlike[:5]))
        raise WeightsError(
            f"the two are not the same method with the same sizes: {why}; average a run and what was tuned from it"
        )
    theirs = first.state_dict()
    for name, tensor in second.state_dict().items():
        if tensor.is_floating_point() and not name.startswith(second.own_state):
            tensor.lerp_(theirs[name].to(tensor), 1.0 - alpha)
    second.started()  # a twin is what its student is
    origin = joined(
        or_unknown(before.origin, names[0], before.name),
        or_unknown(after.origin, names[1], after.name),
        [{"average": f"{1 - alpha:.4g} of {names[0]}, {alpha:.4g} of {names[1]}"}],
    )
    return Model(mixed, after.processor, after.precision, after.batch, origin=origin)
