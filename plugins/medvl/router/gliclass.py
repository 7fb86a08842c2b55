"""The GLiClass bi-encoder as a router uses it: our own forward over the library's weights, one relocatable folder.

Differences to the library's pipeline, whose scores change with the batch and with what else stands in it:
masked mean pooling, label embeddings computed once, questions cut at their head rather than their tail, the label order
fixed, and the label tokenizer found inside the folder.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gliclass import GLiClassModel, GLiClassModelConfig
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging as hub_logging

from medvl.router.encoder import SmallEncoder

LABEL_TOKENIZER = "label_tokenizer"
LONGEST = 256  # tokens; the request stands at the end, and the options of FLARE's longest question take 110


class QuestionClassifier:
    """Scores questions against a fixed list of labels."""

    def __init__(
        self, model: GLiClassModel, tokenizer: Any, label_tokenizer: Any, labels: Mapping[str, str], device: str = "cpu"
    ) -> None:
        """Take over a model, put it on `device` and into evaluation mode.

        Args:
            model: A bi-encoder.
            tokenizer: Of questions.
            label_tokenizer: Of label texts.
            labels: Label -> the text it is encoded by, in the order of the scores.
            device: Where it computes.

        Raises:
            ValueError: another architecture, or labels that are empty or stand twice.
        """
        if model.config.architecture_type != "bi-encoder":
            raise ValueError(f"a router is a bi-encoder, not {model.config.architecture_type}")
        if len(labels) < 2 or not all(labels.values()) or len(set(labels.values())) < len(labels):
            raise ValueError(f"labels need a text each, all different: {dict(labels)}")
        self.model = model.to(device).eval()
        self.tokenizer, self.label_tokenizer, self.labels = tokenizer, label_tokenizer, dict(labels)
        self.device = device
        self.max_length = longest_input(model.config.encoder_config)
        self.tokenizer.truncation_side = "left"  # of a long prompt, the end asks
        self._label_embeddings: Tensor | None = None
        self._small: SmallEncoder | None = None

    def features(self, texts: Sequence[str], *, hidden: float = 0.0) -> Tensor:
        """Masked mean of the encoder's last layer, shape (questions, encoder width).

        Args:
            texts: Not empty.
            hidden: Share of tokens that are taken for unknown ones.
        """
        return self._pooled(self.model.model.encoder_model, self.tokenizer, texts, self.max_length, hidden)

    def label_features(self) -> Tensor:
        """The same of the label texts, shape (labels, label encoder width)."""
        longest = longest_input(self.model.config.label_model_config)
        return self._pooled(self.model.model.label_encoder, self.label_tokenizer, list(self.labels.values()), longest)

    def _pooled(self, encoder: Any, tokenizer: Any, texts: Sequence[str], longest: int, hidden: float = 0.0) -> Tensor:
        batch = tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
        ids, mask = batch["input_ids"].to(self.device), batch["attention_mask"].to(self.device)
        if hidden:
            special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids, device=self.device))
            ids = ids.masked_fill(
                (torch.rand(ids.shape, device=self.device) < hidden) & ~special, tokenizer.unk_token_id
            )
        last = encoder(input_ids=ids, attention_mask=mask)[0]
        weights = mask.unsqueeze(-1).to(last.dtype)
        pooled: Tensor = (last * weights).sum(1) / weights.sum(1)
        return pooled

    def text_embeddings(self, features: Tensor) -> Tensor:
        """What the scorer compares, from `features`."""
        core = self.model.model
        return self._normalised(core.dropout(core.text_projector(features)))

    def label_embeddings(self, features: Tensor) -> Tensor:
        """What the scorer compares, from `label_features`."""
        core = self.model.model
        return self._normalised(core.classes_projector(core.biencoder_projector(features)))

    def _normalised(self, embeddings: Tensor) -> Tensor:
        if not self.model.config.normalize_features:
            return embeddings
        return torch.nn.functional.normalize(embeddings, dim=-1, eps=self.model.model.epsilon)

    def logits(self, texts: Tensor, labels: Tensor) -> Tensor:
        """Scores before the sigmoid, shape (questions, labels), of text and label embeddings."""
        core = self.model.model
        scored: Tensor = core.scorer(texts, labels.unsqueeze(0).expand(len(texts), -1, -1)) * core.logit_scale
        return scored

    def score(self, texts: Sequence[str], batch_size: int = 32) -> tuple[np.ndarray, np.ndarray]:
        """Scores and features of normalised, non-empty questions; the same however they are batched (to 1e-5).

        Returns:
            Logits (questions, labels) and unit features (questions, width), float32, in the order of `texts`.

        Raises:
            ValueError: a text is empty or no text.
        """
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise ValueError("a text is empty or no text")
        with torch.inference_mode():
            return self._score(texts, batch_size)

    def _score(self, texts: Sequence[str], batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        if self._label_embeddings is None:
            self._label_embeddings = self.label_embeddings(self.label_features())
            self._small = SmallEncoder.of(self.model.model.encoder_model) if self.device == "cpu" else None
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        logits = np.zeros((len(texts), len(self.labels)), np.float32)
        features = np.zeros((len(texts), self.model.config.encoder_config.hidden_size), np.float32)
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            found = self._inferred([texts[place] for place in places])
            logits[places] = self.logits(self.text_embeddings(found), self._label_embeddings).float().cpu().numpy()
            features[places] = torch.nn.functional.normalize(found.float(), dim=-1).cpu().numpy()
        return logits, features

    def _inferred(self, texts: list[str]) -> Tensor:
        """`features`, faster where the encoder is small."""
        if self._small is None:
            return self.features(texts)
        ids = self.tokenizer(texts, truncation=True, max_length=self.max_length)["input_ids"]
        return torch.from_numpy(self._small.features(ids))

    def forget_labels(self) -> None:
        """Encode the labels anew and read the encoder's weights again at the next `score`: they have changed."""
        self._label_embeddings = self._small = None

    def save(self, folder: Path) -> None:
        """Write weights (safetensors), configuration and both tokenizers; nothing in them names another folder."""
        config = self.model.config
        config.encoder_model_name, config.label_model_name = "", LABEL_TOKENIZER
        for part in (config, config.encoder_config, config.label_model_config):
            part.name_or_path = ""
        with _quiet():
            self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.label_tokenizer.save_pretrained(folder / LABEL_TOKENIZER)
        for path in folder.glob("*.safetensors"):
            path.chmod(0o644)  # safetensors lets the owner alone read

    @classmethod
    def load(cls, folder: Path, labels: Mapping[str, str], *, device: str = "cpu") -> QuestionClassifier:
        """Read what `save` wrote; the folder may have moved, and no hub is asked."""
        with _offline(), _quiet():
            model = GLiClassModel.from_pretrained(folder, local_files_only=True)
            model.config.label_model_name = str(folder / LABEL_TOKENIZER)
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            label_tokenizer = AutoTokenizer.from_pretrained(folder / LABEL_TOKENIZER, local_files_only=True)
        return cls(model, tokenizer, label_tokenizer, labels, device)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar for half a second, no warning about a configuration that is not for Auto classes."""
    shown, level = hub_logging.is_progress_bar_enabled(), hub_logging.get_verbosity()
    hub_logging.disable_progress_bar()
    hub_logging.set_verbosity_error()
    try:
        yield
    finally:
        hub_logging.set_verbosity(level)
        if shown:
            hub_logging.enable_progress_bar()


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before


def longest_input(config: Any) -> int:
    """Tokens that an encoder takes: a pipeline's default of 1,024 runs past the 512 positions of most."""
    positions = getattr(config, "max_position_embeddings", None) or LONGEST
    offset = 2 if config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet") else 0  # positions start at 2
    return min(LONGEST, positions - offset)


def bi_encoder_config(encoder: Any, label_encoder: Any, **loss: Any) -> GLiClassModelConfig:
    """The configuration of a router's bi-encoder: bounded scores (normalised features), several labels at once.

    `single_label_classification`, the library's default, cannot train a bi-encoder; `none` is the reduction that all of
    its versions accept.
    """
    return GLiClassModelConfig(
        encoder_config=encoder,
        encoder_model="",
        label_model_config=label_encoder,
        label_model_name=LABEL_TOKENIZER,
        architecture_type="bi-encoder",
        pooling_strategy="avg",
        problem_type="multi_label_classification",
        focal_loss_reduction="none",
        normalize_features=True,
        logit_scale_init_value=10.0,
        **loss,
    )


def from_pretrained(
    encoder: str, label_encoder: str, labels: Mapping[str, str], *, device: str = "cpu", **loss: Any
) -> QuestionClassifier:
    """A bi-encoder of two pretrained encoders (folders or hub names) with new heads."""
    config = bi_encoder_config(AutoConfig.from_pretrained(encoder), AutoConfig.from_pretrained(label_encoder), **loss)
    config.encoder_model_name, config.label_model_name = encoder, label_encoder
    with _quiet():
        model = GLiClassModel(config, from_pretrained=True)
    tokenizer, label_tokenizer = (AutoTokenizer.from_pretrained(name) for name in (encoder, label_encoder))
    return QuestionClassifier(model, tokenizer, label_tokenizer, labels, device)


def from_scratch(
    texts: Sequence[str], labels: Mapping[str, str], *, device: str = "cpu", **loss: Any
) -> QuestionClassifier:
    """A small bi-encoder with random weights and the vocabulary of `texts`, for a machine without a model hub."""
    from transformers import BertConfig

    tokenizer = _word_pieces([*texts, *labels.values(), *labels.values()])  # no word of a label is too rare
    encoder, label_encoder = (
        BertConfig(
            vocab_size=len(tokenizer), num_hidden_layers=1, hidden_size=128, num_attention_heads=4,
            intermediate_size=256, max_position_embeddings=128, pad_token_id=tokenizer.pad_token_id,
            hidden_dropout_prob=dropped, attention_probs_dropout_prob=dropped, initializer_range=0.1,
        )
        for dropped in (0.1, 0.0)
    )  # fmt: skip
    model = GLiClassModel(bi_encoder_config(encoder, label_encoder, initializer_range=0.125, **loss))
    # What all texts share at first would leave all labels with one score, where training stays for long: with the
    # library's ranges and loud positions the labels start at a cosine of 0.94 to each other, so at 0.54.
    with torch.no_grad():
        for part in (model.model.encoder_model, model.model.label_encoder):
            part.embeddings.position_embeddings.weight.mul_(0.1)
            part.embeddings.token_type_embeddings.weight.zero_()
    return QuestionClassifier(model, tokenizer, tokenizer, labels, device)


def _word_pieces(texts: Sequence[str], rarest: int = 2, least_words: int = 8) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer of the words in `texts`, and of the beginnings and ends that many of them share.

    Counted here, since the trainer of `tokenizers` gives another vocabulary every time it runs.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    special = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    parts: Counter[str] = Counter()
    for word in words:
        parts.update(word[:end] for end in range(3, min(len(word), 7)))
        parts.update(f"##{word[start:]}" for start in range(max(1, len(word) - 4), len(word)))
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = [*special.values(), *letters, *(f"##{letter}" for letter in letters)]
    pieces += sorted(word for word, times in words.items() if times >= rarest)
    pieces += sorted(part for part, times in parts.items() if times >= least_words)
    tokenizer = Tokenizer(models.WordPiece(dict(zip(dict.fromkeys(pieces), count(), strict=False)), unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.decoder = decoders.WordPiece()
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[SEP]", "[CLS]")]
    tokenizer.post_processor = processors.BertProcessing(*ends)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **special)
