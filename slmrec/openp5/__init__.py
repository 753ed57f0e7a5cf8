"""Open-P5 (Xu et al. 2023), the generative row of the paper's tables: a LLaMA writes the next item's tokens."""
