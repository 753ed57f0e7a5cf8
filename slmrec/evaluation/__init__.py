"""Ranking metrics and the 1 + 999 protocol (paper, Section 5.1)."""
