"""Training loops: the Hugging Face Trainer for the LLM stages, a small one for the encoders."""
