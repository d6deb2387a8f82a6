"""What a trained model is measured on, a file per task. Tasks know abilities, never a particular method."""

from __future__ import annotations

from multiway.tasks.captioning import Captioning
from multiway.tasks.judging import Judging
from multiway.tasks.masked_words import MaskedWords
from multiway.tasks.matching import Matching
from multiway.tasks.refer import Refer
from multiway.tasks.rerank import Rerank
from multiway.tasks.retrieval import Retrieval
from multiway.tasks.task import Metric, Result, Task
from multiway.tasks.vcr import Vcr
from multiway.tasks.vqa import Vqa
from multiway.tasks.zeroshot import ZeroShot

__all__ = ["TASKS", "Metric", "Result", "Task"]

# Every task with its default settings, by the name the command line uses. A new task is one line here.
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Retrieval(),
        Rerank(),
        Rerank(name="fusion", top=0),
        Matching(),
        MaskedWords(),
        Captioning(),
        ZeroShot(),
        Vqa(),
        Vqa(name="gqa", official=False),
        Judging(),
        Judging(name="nlvr2", pictures=2),
        Vcr(),
        Refer(),
    )
}
