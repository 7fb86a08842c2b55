"""The small encoder in numpy computes what torch computes, and leaves every other encoder to torch."""

import numpy as np
import pytest

pytest.importorskip("gliclass")
import torch
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

from medvl.router.encoder import SmallEncoder
from medvl.router.gliclass import QuestionClassifier, from_scratch
from medvl.router.labels import LABELS

TEXTS = ["count", "how many cells are in this image, and where is each of them", "is it a cyst?", "cells " * 300]
SMALL = {"vocab_size": 50, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48,
         "max_position_embeddings": 20, "num_hidden_layers": 2}  # fmt: skip


def bert(**changes: object) -> BertModel:
    torch.manual_seed(0)
    return BertModel(BertConfig(**{**SMALL, "initializer_range": 0.3, **changes})).eval()


@pytest.fixture
def classifier() -> QuestionClassifier:
    torch.manual_seed(0)
    return from_scratch(TEXTS * 2, LABELS)


@pytest.mark.parametrize("layers", [1, 2])
def test_features_are_those_of_torch_however_questions_are_batched(layers: int) -> None:
    encoder = bert(num_hidden_layers=layers)
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, 50, size).tolist() for size in (1, 20, 7, 2)]
    small = SmallEncoder.of(encoder)
    assert small is not None
    together = small.features(ids)
    for row, tokens in enumerate(ids):
        with torch.inference_mode():
            expected = encoder(input_ids=torch.tensor([tokens]))[0][0].mean(0).numpy()
        assert np.abs(together[row] - expected).max() < 1e-5
        assert np.abs(small.features([tokens])[0] - expected).max() < 1e-5


def test_a_question_scores_as_by_torch(classifier: QuestionClassifier) -> None:
    fast, features = classifier.score(TEXTS)
    assert classifier._small is not None
    classifier._small = None
    slow, expected = classifier.score(TEXTS)
    assert np.abs(fast - slow).max() < 1e-4
    assert np.abs(features - expected).max() < 1e-5


def test_weights_that_have_changed_are_read_again(classifier: QuestionClassifier) -> None:
    before = classifier.score(TEXTS)[1]
    with torch.no_grad():
        classifier.model.model.encoder_model.embeddings.word_embeddings.weight.mul_(-1)
    assert np.array_equal(classifier.score(TEXTS)[1], before), "a copy, until it is told"
    classifier.forget_labels()
    assert np.abs(classifier.score(TEXTS)[1] - before).max() > 0.1


def test_wide_deep_and_other_encoders_stay_with_torch() -> None:
    assert SmallEncoder.of(bert(hidden_size=320)) is None
    assert SmallEncoder.of(bert(num_hidden_layers=3)) is None
    assert SmallEncoder.of(bert(hidden_act="relu")) is None
    assert SmallEncoder.of(bert().half()) is None
    other = DistilBertConfig(vocab_size=50, dim=32, n_heads=4, hidden_dim=48, n_layers=1)
    assert SmallEncoder.of(DistilBertModel(other)) is None
    assert SmallEncoder.of(torch.nn.Linear(2, 2)) is None
