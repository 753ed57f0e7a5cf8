"""What the layers of a trained E-LLMRec hold, measured without any training."""
