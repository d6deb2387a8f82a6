"""What is compiled is compiled once: neither progress, nor a queue that fills, nor the length of texts asks for it again."""

from collections.abc import Iterator
from functools import partialmethod

import pytest
import torch
from toy import ToySource

from multiway.batch import Batch, DataInfo, ViewSpec
from multiway.data.augment import finish
from multiway.data.loader import Loader
from multiway.data.masking import Masking
from multiway.data.tokenizer import Tokenizer, TokenizerSpec
from multiway.engine.compiling import compile_networks
from multiway.methods.albef import Albef, AlbefConfig
from multiway.methods.method import Method, Step
from multiway.methods.moco import Moco, MocoConfig
from multiway.nn.text import TextConfig
from multiway.nn.vit import VisionConfig
from multiway.world import World

TOWER = VisionConfig(size=16, patch=8, width=16, layers=1, heads=2)


@pytest.fixture(autouse=True)
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Graphs are caught as ever and run as they are: making code of them would take a minute."""
    torch.compiler.reset()
    made = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(made, backend="eager"))
    yield
    torch.compiler.reset()


def views(step: int) -> Batch:
    torch.manual_seed(step)
    ids = torch.arange(4) + 4 * step
    return Batch(views=(torch.rand(4, 3, 16, 16), torch.rand(4, 3, 16, 16)), image_id=ids, sample_index=ids)


SOURCE = ToySource(32)
WORDS = Tokenizer.train([text for row in range(32) for text in SOURCE.row(row).captions], TokenizerSpec(300, 16))
VIEW = ViewSpec(size=16)


def pairs(step: int) -> Batch:
    loader = Loader(SOURCE, VIEW, WORDS, 8, masking=Masking(0.3, least=1))
    return finish(loader.batch(step), VIEW)


def total(method: Method, batch: Batch, step: Step) -> float:
    torch.manual_seed(0)  # of masks and of drawn negatives
    losses = method.training_step(batch, World(), step)
    losses.total.backward()  # type: ignore[no-untyped-call]
    method.after_step(step, losses.updates)
    return float(losses.total.detach())


@pytest.mark.parametrize("name", ["moco", "albef"])
def test_one_compilation_serves_all_steps(name: str) -> None:
    def made() -> Method:
        torch.manual_seed(0)
        if name == "moco":
            return Moco(MocoConfig(backbone=TOWER, queue=16))
        text = TextConfig(width=16, layers=1, heads=2, causal=False, pool="class")
        config = AlbefConfig(image=TOWER, text=text, fusion_layers=1, embedding=8, queue=24, queue_from=0.0)
        return Albef(config.resolve(DataInfo(vocabulary=len(WORDS), context=16)))

    draw = views if name == "moco" else pairs
    plain, compiled = made(), made()
    compile_networks(compiled)
    for step in range(5):
        if step == 2:  # the second length of texts has made sizes symbols, where they were not
            torch.compiler.set_stance("fail_on_recompile")
        at = Step(progress=step / 5)
        try:
            assert total(compiled, draw(step), at) == pytest.approx(total(plain, draw(step), at), rel=1e-5)
        finally:
            if step == 4:
                torch.compiler.set_stance("default")


def test_what_talks_to_others_is_left_as_it_is() -> None:
    method = Moco(MocoConfig(backbone=TOWER, queue=16))
    names = list(method.state_dict())
    compile_networks(method)
    compiled = [name for name, part in method.named_modules() if part._compiled_call_impl is not None]
    assert compiled == ["backbone.transformer.blocks.0", "twin.0.transformer.blocks.0"]
    assert list(method.state_dict()) == names


def test_a_network_without_units_is_compiled_as_a_whole() -> None:
    class Linear(Method):
        def __init__(self) -> None:
            super().__init__()
            self.map = torch.nn.Linear(3, 2)

        def encode(self, batch: Batch, step: Step) -> dict[str, torch.Tensor]:
            return {"mapped": self.map(batch.images.mean((2, 3)))}

    plain, compiled = Linear(), Linear()
    compiled.load_state_dict(plain.state_dict())
    compile_networks(compiled)
    batch = Batch(images=torch.rand(4, 3, 8, 8), image_id=torch.arange(4), sample_index=torch.arange(4))
    assert "encode" in vars(compiled)
    torch.testing.assert_close(compiled.encode(batch, Step()), plain.encode(batch, Step()))
