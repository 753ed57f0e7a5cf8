"""A whole pipeline: whose flag is it, which commands, do they fit together, which are to run."""
