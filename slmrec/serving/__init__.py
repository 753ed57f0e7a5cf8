"""A trained model behind HTTP: requests are batched for a few milliseconds and answered together."""
