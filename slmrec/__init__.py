"""SLMRec: distilling large language models into small ones for sequential recommendation (ICLR 2025)."""

__version__ = "0.1.0"
