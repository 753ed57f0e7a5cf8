"""Item texts to vectors without a language model: weighted counts of words and word pairs, reduced by an SVD."""

from __future__ import annotations

import numpy as np

from slmrec.errors import InputError


def tfidf_vectors(texts: list[str], num_dimensions: int, ngrams: int, seed: int) -> np.ndarray:
    """Latent semantic analysis (Deerwester et al. 1990) of the texts, float32 [len(texts), d_text].

    A term is a word of at least two letters or digits, or a run of up to `ngrams` of them; its weight in a text is
    (1 + log count) * idf, rows have length 1, and the SVD of that matrix keeps the leading `num_dimensions` directions (fewer
    where there are fewer terms or texts). Raises InputError when no text has a word.
    """
    from sklearn.decomposition import TruncatedSVD  # here: scikit-learn takes a second to import, and only this encoder needs it
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, ngrams), sublinear_tf=True, dtype=np.float32)
    try:
        weights = vectorizer.fit_transform(texts)  # sparse [len(texts), terms]
    except ValueError as error:
        raise InputError(f"--encoder tfidf: the titles have no words to count ({error})") from None
    kept = min(num_dimensions, *weights.shape)
    return TruncatedSVD(kept, random_state=seed).fit_transform(weights).astype(np.float32)
