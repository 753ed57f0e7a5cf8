"""Raw reviews to sequences, leave-one-out views, candidates and batches."""
