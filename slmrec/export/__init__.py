"""A trained E-LLMRec outside this project: as a plain Hugging Face folder, or as an ONNX graph."""
