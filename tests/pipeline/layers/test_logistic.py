"""Linear models: against scikit-learn and closed forms, and in parts as at once."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from pipeline.layers import logistic

GENERATOR = torch.Generator().manual_seed(0)
ROWS = torch.randn(200, 5, generator=GENERATOR) * torch.tensor([1.0, 3.0, 0.5, 10.0, 1.0]) + 2
LABELS = (ROWS[:, 0] + torch.randn(200, generator=GENERATOR) > 2).long() + (ROWS[:, 1] > 3).long()


def test_softmax_regression_is_scikit_learns() -> None:
    mean, scale = logistic.standardised(ROWS)
    weight, bias = logistic.multinomial(ROWS, LABELS, 3, penalty=0.01, iterations=200)
    # scikit-learn minimises the sum of losses + ‖w‖² / (2C).
    other = LogisticRegression(C=1 / (0.01 * len(ROWS)), tol=1e-8, max_iter=1000)
    other.fit(((ROWS - mean) / scale).numpy(), LABELS.numpy())
    expected = torch.from_numpy(other.predict_proba(((ROWS - mean) / scale).numpy())).float()
    torch.testing.assert_close((ROWS @ weight.T + bias).softmax(1), expected, atol=1e-3, rtol=0)


def test_binary_regression_is_scikit_learns_with_weights() -> None:
    positive, weights = LABELS > 0, torch.rand(200, generator=GENERATOR) / 200
    weight, bias = logistic.binary(ROWS, positive, weights, penalty=0.001, iterations=300)
    other = LogisticRegression(C=1 / 0.001, tol=1e-10, max_iter=5000)
    other.fit(ROWS.numpy(), positive.numpy(), weights.numpy())
    expected = torch.from_numpy(other.decision_function(ROWS.numpy())).float()
    torch.testing.assert_close(ROWS @ weight + bias, expected, atol=2e-2, rtol=2e-2)


def test_many_rows_are_the_sum_of_their_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = logistic.multinomial(ROWS, LABELS, 3, penalty=0.01, iterations=20)
    monkeypatch.setattr(logistic, "CHUNK", 64)
    parts = logistic.multinomial(ROWS, LABELS, 3, penalty=0.01, iterations=20)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=2e-3)


def test_a_channel_that_never_varies_gets_no_weight() -> None:
    rows = torch.cat([ROWS, torch.full((200, 1), 7.0)], 1)
    weight, bias = logistic.multinomial(rows, LABELS, 3, penalty=0.01, iterations=50)
    assert torch.isfinite(weight).all() and torch.isfinite(bias).all()
    assert weight[:, -1].abs().max() < 1e-3
