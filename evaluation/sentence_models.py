"""BERTScore and STS, by which M3LLM compares sentences: two models, behind the extra `m3llm`.

Both are fetched from the Hugging Face Hub at the first call, or read from its cache.
"""

from collections.abc import Callable, Mapping, Sequence

# Metric -> the model that the published numbers are by.
MODELS: Mapping[str, str] = {
    "bertscore_mnli": "microsoft/deberta-xlarge-mnli",
    "sts": "sentence-transformers/all-MiniLM-L6-v2",
}

_LONGEST = 512  # tokens


def bertscore(texts: Sequence[str], truths: Sequence[str], model: str) -> list[float]:
    """F1 of the token vectors of each text and its reference; no baseline is taken off, as in the published numbers."""
    from bert_score import BERTScorer

    scorer = BERTScorer(model_type=model, lang="en")
    # DeBERTa's tokenizer names no longest text, which transformers 5 writes as a number too large for its own code
    # (Tiiiger/bert_score issue 205). The model has 512 positions.
    scorer._tokenizer.model_max_length = min(scorer._tokenizer.model_max_length, _LONGEST)
    return [float(value) for value in scorer.score(list(texts), list(truths))[2]]


def sts(texts: Sequence[str], truths: Sequence[str], model: str) -> list[float]:
    """Cosine of the sentence vectors of each text and its reference."""
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(model)
    sides = [encoder.encode(list(side), normalize_embeddings=True) for side in (texts, truths)]
    return [float(value) for value in (sides[0] * sides[1]).sum(axis=1)]


_SCORERS: Mapping[str, Callable[[Sequence[str], Sequence[str], str], list[float]]] = {
    "bertscore_mnli": bertscore,
    "sts": sts,
}


def sentence_scores(names: Sequence[str], texts: Sequence[str], truths: Sequence[str]) -> dict[str, list[float]]:
    """Scores of every text under these metrics; raises ImportError without the extra."""
    return {name: _SCORERS[name](texts, truths, MODELS[name]) for name in names}
