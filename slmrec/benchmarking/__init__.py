"""The measurements behind `python -m slmrec.benchmark`: what exact encoding and depth save, in time, tokens and memory."""
