"""What an embedding depends on beside its picture or text: which model, in five short strings."""

from __future__ import annotations

from multiway.config import digest
from multiway.hub.model import Model
from multiway.hub.start import weights_hash

__all__ = ["model_identity"]


def model_identity(model: Model) -> dict[str, str]:
    """`method`, `config`, `weights`, `processor` and `precision`: a name and digests. Models that agree in all compute the same."""
    return {
        "method": model.name,
        "config": digest(model.method.config_json()),
        "weights": weights_hash(model.method.state_dict()),
        "processor": digest(model.processor.to_header()),
        "precision": model.precision,
    }
