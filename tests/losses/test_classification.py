"""Cross entropy over classes against its definition in float64."""

import math

import pytest
import torch

from multiway.losses.classification import classification


def twin(logits, target, smoothing=0.0, unknown=-1):
    total, known = 0.0, 0
    for row, label in zip(logits.double(), target, strict=True):
        if label.ndim == 0:
            if label == unknown:
                continue
            label = torch.eye(len(row), dtype=torch.float64)[label]
        q = (1 - smoothing) * label.double() + smoothing / len(row)
        total = total - sum(q[k] * (row[k] - torch.logsumexp(row, 0)) for k in range(len(row)))
        known += 1
    return total / known


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("classes", [2, 7])
def test_equals_the_twin(classes, soft, smoothing):
    torch.manual_seed(0)
    logits = torch.randn(9, classes, requires_grad=True)
    target = torch.rand(9, classes).softmax(1) if soft else torch.randint(-1, classes, (9,))
    result = classification(logits, target, smoothing)
    expected = twin(logits, target, smoothing)
    assert float(result.loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    (got,), (want,) = (torch.autograd.grad(loss, logits) for loss in (result.loss, expected))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)
    assert result.chance == pytest.approx(math.log(classes)) and result.formula == f"ln {classes}"


def test_accuracy_counts_rows_with_a_label():
    logits = torch.eye(4)
    result = classification(logits, torch.tensor([0, 1, 0, -1]))
    assert float(result.accuracy) == pytest.approx(2 / 3) and int(result.rows) == 3
    assert float(classification(logits, torch.eye(4).roll(1, 0)).accuracy) == 0.0


def test_a_batch_without_labels_is_zero_not_nan():
    logits = torch.randn(3, 4, requires_grad=True)
    result = classification(logits, torch.full((3,), -1))
    result.loss.backward()
    assert result.loss == 0 and result.accuracy == 0 and int(result.rows) == 0
    assert torch.equal(logits.grad, torch.zeros(3, 4))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_log_frequencies_as_logits_score_exactly_chance(smoothing):
    counts = torch.tensor([6, 3, 1])
    labels = torch.repeat_interleave(torch.arange(3), counts)
    q = (1 - smoothing) * counts / 10 + smoothing / 3
    result = classification(q.log().expand(10, 3), labels, smoothing, counts)
    assert float(result.loss) == pytest.approx(result.chance, rel=1e-6)


def test_autocast_and_low_precision_are_summed_in_float32():
    logits = 20 * torch.randn(8, 50)
    labels = torch.arange(8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = classification(logits.bfloat16(), labels).loss
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, twin(logits.bfloat16(), labels).float())


def test_refusals_name_what_was_given():
    with pytest.raises(ValueError, match="label 5 does not name one of 4 classes"):
        classification(torch.zeros(2, 4), torch.tensor([0, 5]))
    with pytest.raises(ValueError, match=r"logits are \(2, 3, 4\)"):
        classification(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="3 class frequencies for 4 classes"):
        classification(torch.zeros(2, 4), torch.tensor([0, 1]), frequencies=[1, 1, 1])
    with pytest.raises(ValueError, match="expected int64 classes"):
        classification(torch.zeros(2, 4), torch.zeros(2))
