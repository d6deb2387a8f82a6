"""Cheap numbers from which collapse and dead gradients can be told, taken on every logged step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from multiway.losses.uniformity import uniformity
from multiway.nn.sharded import locals_of, of_whole
from multiway.world import World

__all__ = ["effective_rank", "gradient_health", "health"]

# The effective rank needs a decomposition, cubic in the smaller side; this many rows say enough.
MAX_ROWS = 512
MAX_PAIRED = 256  # rows whose pairs are all looked at


@torch.no_grad()
def health(features: Mapping[str, Tensor]) -> dict[str, float]:
    """How spread out the embeddings of one batch are.

    For each name, such as `image`:

    - `image/std`: standard deviation over rows, averaged over dimensions, times sqrt(D). 1 for directions spread evenly
      over the sphere, 0 for collapse to one point (the quantity watched by Chen & He 2021, arXiv 2011.10566, figure 2).
    - `image/mean_cosine`: mean cosine between different rows. 0 for an even spread, 1 for collapse.
    - `image/rank`: effective rank (see `effective_rank`), between 1 and `image/rank_limit` = min(B, D).
    - `image/uniformity`: of at most `MAX_PAIRED` rows (Wang & Isola 2020, arXiv 2005.10242, equation 9, t = 2): 0 for collapse,
      about -4 at best.
    - `image/nonfinite`: rows with a nan or inf; they are left out of the others.

    Costs one copy to the CPU per name and a decomposition of at most `MAX_ROWS` rows.

    Args:
        features: (B, D) embeddings by name, in any floating type, on any device. They are brought to length 1 here.

    Returns:
        The numbers; of fewer than two finite rows only `nonfinite`.

    Raises:
        ValueError: if a tensor is not (B, D).
    """
    found: dict[str, float] = {}
    for name, given in features.items():
        if given.ndim != 2:
            raise ValueError(f"features `{name}` have shape {tuple(given.shape)}; expected embeddings (B, D)")
        rows = given.detach().to("cpu", torch.float32)
        finite = torch.isfinite(rows).all(dim=1)
        found[f"{name}/nonfinite"] = float((~finite).sum())
        rows = torch.nn.functional.normalize(rows[finite], dim=1)
        count, width = rows.shape
        if count < 2:
            continue
        found[f"{name}/std"] = float(rows.std(dim=0, correction=0).mean()) * math.sqrt(width)
        # Sum over i != j of <x_i, x_j> = |sum x_i|^2 - sum |x_i|^2: no B x B matrix.
        crossed = rows.sum(dim=0).double().square().sum() - rows.double().square().sum()
        found[f"{name}/mean_cosine"] = float(crossed) / (count * (count - 1))
        some = rows[:MAX_ROWS]
        found[f"{name}/rank"] = effective_rank(some)
        found[f"{name}/rank_limit"] = float(min(some.shape))
        found[f"{name}/uniformity"] = float(uniformity(rows[:MAX_PAIRED], World()))
    return found


def effective_rank(rows: Tensor) -> float:
    """exp(H(p)) with p_i = sigma_i / sum sigma: how many directions the rows use (Roy & Vetterli 2007, EUSIPCO).

    The rows are not centred: a constant has rank 1, as one wants, whereas rounding noise around a constant has not.

    Args:
        rows: (B, D).

    Returns:
        Between 1 and min(B, D); 0 if all rows are zero.
    """
    matrix = rows.detach().to("cpu", torch.float64)
    # Eigenvalues of the smaller Gram matrix are the squared singular values, at a fraction of the cost.
    gram = matrix @ matrix.T if matrix.shape[0] < matrix.shape[1] else matrix.T @ matrix
    eigenvalues = torch.linalg.eigvalsh(gram)
    # Below the rounding of the largest they are noise, and square roots would magnify it.
    floor = float(eigenvalues[-1]) * len(gram) * torch.finfo(torch.float64).eps
    singular = eigenvalues[eigenvalues > floor].sqrt()
    if len(singular) == 0:
        return 0.0
    share = singular / singular.sum()
    return float(torch.exp(-(share * share.log()).sum()))


@torch.no_grad()
def gradient_health(parameters: Iterable[Tensor]) -> dict[str, float]:
    """The gradient in three numbers; call it between `backward` and `zero_grad`.

    - `gradient/norm`: Euclidean norm over all parameters; nan or inf if any entry is.
    - `gradient/zero_share`: share of the trained scalars whose gradient is exactly zero or absent. Embeddings of tokens
      that a batch lacks belong here, so a text model's share is never 0.
    - `gradient/nonfinite`: number of nan and inf entries.

    Args:
        parameters: those that do not require a gradient are passed over. Where ranks hold parts of them every rank calls it.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    total = sum(parameter.numel() for parameter in trained)
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    if not gradients:
        return {"gradient/norm": 0.0, "gradient/zero_share": 1.0, "gradient/nonfinite": 0.0}
    device = gradients[0].device
    counted = [
        torch.stack([torch.linalg.vector_norm(each.float()).double().square(), used, nonfinite]).to(device)
        for each in locals_of(gradients)
        for used, nonfinite in [(torch.count_nonzero(each).double(), (~torch.isfinite(each)).sum().double())]
    ]
    # One copy from the device for all three.
    numbers = of_whole(torch.stack(counted), gradients).sum(0).tolist()
    return {
        "gradient/norm": math.sqrt(numbers[0]),
        "gradient/zero_share": 1.0 - numbers[1] / total,
        "gradient/nonfinite": numbers[2],
    }
