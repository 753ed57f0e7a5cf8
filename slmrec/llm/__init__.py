"""E-LLMRec: a LLaMA-family decoder between frozen item embeddings and user vectors (paper, Section 3)."""
