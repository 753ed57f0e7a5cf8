"""The measurements behind `python -m reproduce.efficiency`: what exact encoding and depth save, in time, tokens and memory."""
