from __future__ import annotations

import pytest

from trainer.config import NetworkTrainingConfig
from trainer.optimization import learning_rate


def test_learning_rate_warms_up_and_ends_where_it_should() -> None:
    constant = NetworkTrainingConfig(max_steps=100, lr=2.0, warmup_steps=4)
    assert [learning_rate(constant, step) for step in (0, 1, 3, 4, 99)] == [0.5, 1.0, 2.0, 2.0, 2.0]
    cosine = NetworkTrainingConfig(max_steps=100, lr=2.0, warmup_steps=20, lr_schedule="cosine", lr_end=0.1)
    assert learning_rate(cosine, 20) == 2.0
    assert learning_rate(cosine, 60) == pytest.approx(1.1)
    assert learning_rate(cosine, 100) == pytest.approx(0.2)
    assert learning_rate(cosine, 1000) == pytest.approx(0.2)
    no_warmup = NetworkTrainingConfig(max_steps=100, lr=2.0, lr_schedule="cosine")
    assert learning_rate(no_warmup, 0) == 2.0
