"""Distilling a deep E-LLMRec into a shallow one (paper, Section 4)."""
