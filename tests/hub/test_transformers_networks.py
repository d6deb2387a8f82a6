"""A picture encoder equals ResNet, Swin, ConvNeXt and DeiT of transformers with copied random weights: memory, folders, and back."""

from types import ModuleType

import pytest
import torch
import transformers as theirs_all
from hub.vit_peers import converted, drawn_alike, nothing_unaccounted, opened, pictures, same_state
from peer_weights import randomise
from torch import Tensor, nn
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from multiway.batch import ViewSpec
from multiway.data.processor import Processor
from multiway.hub import transformers_convnext, transformers_deit, transformers_resnet, transformers_swin
from multiway.hub.file import WeightsError, read_model, write_model
from multiway.hub.layouts import to_transformers
from multiway.hub.load import load
from multiway.hub.model import Model
from multiway.methods.dino import Dino, DinoConfig
from multiway.methods.moco import Moco, MocoConfig
from multiway.methods.picture_encoder import PictureEncoder
from multiway.nn.backbone import ConvNextConfig, resnet
from multiway.nn.mlp_head import MlpHeadConfig
from multiway.nn.swin import SwinConfig
from multiway.nn.vit import VisionConfig

SIZES: dict[str, dict] = {
    "resnet-basic": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 1], "layer_type": "basic"},
    "resnet-bottleneck": {"embedding_size": 4, "hidden_sizes": [16, 32, 64], "depths": [1, 2, 1]},
    "swin": {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
    "convnext": {"hidden_sizes": [8, 16, 32], "depths": [2, 1, 2], "num_stages": 3, "layer_norm_eps": 1e-6},
    "deit": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 49, "image_size": 32,
             "patch_size": 8},
}  # fmt: skip
MODULES = {
    "resnet": transformers_resnet,
    "swin": transformers_swin,
    "convnext": transformers_convnext,
    "deit": transformers_deit,
}
CONFIGS = {name: getattr(module, f"{name}_config") for name, module in MODULES.items()}
CLASSES = {"resnet": "ResNet", "swin": "Swin", "convnext": "ConvNext", "deit": "DeiT"}


def made(name: str, head: str = "Model") -> nn.Module:
    kind = CLASSES[name.partition("-")[0]]
    theirs = getattr(theirs_all, f"{kind}{head}")(getattr(theirs_all, f"{kind}Config")(**SIZES[name]))
    randomise(theirs)
    torch.manual_seed(0)
    with torch.no_grad():  # statistics are none of its parameters
        for key, each in theirs.named_buffers():
            if "running_var" in key:
                each.uniform_(0.5, 2.0)
            elif "running_mean" in key:
                each.normal_()
    return theirs.eval()


def module_of(name: str) -> ModuleType:
    return MODULES[name.partition("-")[0]]


def told(theirs: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Theirs of pictures: tokens (B, N, W), and a vector."""
    found = theirs(images)
    tokens = found.last_hidden_state
    if tokens.ndim == 4:
        tokens = tokens.flatten(2).transpose(1, 2)
    vector = (
        found.last_hidden_state[:, 0] if isinstance(theirs, theirs_all.DeiTModel) else found.pooler_output.flatten(1)
    )
    return tokens, vector


@torch.no_grad()
def same(ours: PictureEncoder, theirs: nn.Module, images: Tensor) -> None:
    tokens, vector = told(theirs, images)
    found = ours.backbone(images)
    scale = max(1.0, float(tokens.abs().max()))
    assert found.tokens.shape == tokens.shape and (found.tokens - tokens).abs().max() < 1e-5 * scale
    assert (found.pooled - vector).abs().max() < 1e-5 * scale
    assert (ours.encode_image(images).embedding - nn.functional.normalize(vector, dim=1)).abs().max() < 1e-5
    assert vector.std(0).max() > 0.01 * vector.abs().max()  # rows differ, so the comparison can fail


@pytest.mark.parametrize("name", SIZES)
def test_tokens_and_vectors_equal(name: str) -> None:
    theirs = made(name)
    same(converted(theirs, CONFIGS[name.partition("-")[0]], module_of(name)), theirs, pictures())


@pytest.mark.parametrize("name", SIZES)
def test_nothing_is_left_over_or_missing_in_silence(name: str) -> None:
    theirs = made(name)
    ours = converted(theirs, CONFIGS[name.partition("-")[0]], module_of(name))
    apart = ("pooler.", "relative_position_index")
    state = {
        key: each
        for key, each in module_of(name).names(theirs.state_dict()).items()
        if not any(a in key for a in apart)
    }
    nothing_unaccounted(module_of(name).table(ours.config), ours, state)


@pytest.mark.parametrize("name", ["resnet-basic", "resnet-bottleneck", "swin", "convnext"])
def test_round_trip_is_exact_to_the_bit(name: str, tmp_path) -> None:
    """By folders: what transformers wrote is what we write, tensor by tensor."""
    from safetensors.torch import load_file

    theirs = made(name)
    theirs.save_pretrained(tmp_path / "theirs")
    to_transformers(load(f"hf:{tmp_path / 'theirs'}"), tmp_path / "ours")
    wanted, found = (load_file(tmp_path / each / "model.safetensors") for each in ("theirs", "ours"))
    same_state(found, {key: each for key, each in wanted.items() if "relative_position_index" not in key})


@pytest.mark.parametrize("name", SIZES)
def test_folders_of_classifiers_are_read_and_written(name: str, tmp_path, caplog) -> None:
    """The classifier stays behind, is named, and is in the report; ours opens in theirs, comes back, and is one file of ours too."""
    theirs = made(name, "ForImageClassification")
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load(f"hf:{tmp_path / 'theirs'}")
    assert "classifier" in caplog.text and any("classifier" in why for why in ours.report.aside)
    inner = getattr(theirs, name.partition("-")[0])
    same(ours.method, inner, pictures())
    to_transformers(ours, tmp_path / "ours")
    more = {} if name.startswith(("resnet", "convnext")) else {"add_pooling_layer": name == "swin"}
    if name == "deit":
        more = {"add_pooling_layer": False}
    kind = getattr(theirs_all, f"{CLASSES[name.partition('-')[0]]}Model")
    same(ours.method, opened(kind, tmp_path / "ours", **more), pictures())
    back = load(f"hf:{tmp_path / 'ours'}")
    same_state(back.method.state_dict(), ours.method.state_dict())
    write_model(tmp_path / "one.safetensors", ours.method, ours.processor)
    assert read_model(tmp_path / "one.safetensors").method.config == ours.method.config


def test_a_method_trained_here_is_written(tmp_path) -> None:
    """Of MoCo and DINO the backbone; which class it is follows from it."""
    head = MlpHeadConfig(hidden=8, output=8)
    for number, (method, kind) in enumerate((
        (Moco(MocoConfig(resnet(18, "imagenet", base=8), head, queue=4)), "ResNetModel"),
        (Dino(DinoConfig(SwinConfig(base=16, depths=(2, 2), head_width=8), projector=head)), "SwinModel"),
        (Dino(DinoConfig(ConvNextConfig(base=8, depths=(1, 1), layer_scale=0.5), projector=head)), "ConvNextModel"),
        (Dino(DinoConfig(VisionConfig(32, 8, 32, 2, 2, registers=1), projector=head)), "DeiTModel"),
    )):  # fmt: skip
        model = Model(randomise(method), Processor(ViewSpec(32, "squash"), None))
        to_transformers(model, tmp_path / str(number))
        more = {"add_pooling_layer": False} if kind == "DeiTModel" else {}
        theirs = opened(getattr(theirs_all, kind), tmp_path / str(number), **more)
        with torch.no_grad():
            assert (method.eval().backbone(pictures()).pooled - told(theirs, pictures())[1]).abs().max() < 1e-4
        assert load(f"hf:{tmp_path / str(number)}").processor.view == model.processor.view


def test_pictures_are_drawn_as_theirs(tmp_path) -> None:
    made("convnext").save_pretrained(tmp_path / "share")
    processor = ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=0.8)
    processor.save_pretrained(tmp_path / "share")
    drawn_alike(load(f"hf:{tmp_path / 'share'}"), processor, (57, 80, 3))
    made("swin").save_pretrained(tmp_path / "squeezed")
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    processor.save_pretrained(tmp_path / "squeezed")
    drawn_alike(load(f"hf:{tmp_path / 'squeezed'}"), processor, (57, 80, 3))


def test_what_has_no_counterpart_is_refused(tmp_path) -> None:
    for config, wrong, said in (
        ("resnet", {"downsample_in_bottleneck": True}, "downsample_in_bottleneck"),
        ("resnet", {"hidden_sizes": [256, 300]}, "twice as wide"),
        ("swin", {"num_heads": [3, 3, 3, 3]}, "twice as many heads"),
        ("swin", {"use_absolute_embeddings": True}, "no absolute positions"),
        ("convnext", {"hidden_act": "relu"}, "GELU"),
        ("deit", {"qkv_bias": False}, "qkv_bias"),
    ):
        with pytest.raises(WeightsError, match=said):
            CONFIGS[config](wrong)
    cifar = Moco(MocoConfig(resnet(18, "cifar", base=4), MlpHeadConfig(output=4), queue=4))
    with pytest.raises(WeightsError, match="stem='cifar'"):
        to_transformers(Model(cifar, Processor(ViewSpec(32), None)), tmp_path / "x")
    wide = Dino(DinoConfig(ConvNextConfig(kernel=5), projector=MlpHeadConfig()))
    with pytest.raises(WeightsError, match="kernel=5"):
        to_transformers(Model(wide, Processor(ViewSpec(32), None)), tmp_path / "x")
