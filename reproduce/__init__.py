"""The paper's numbers and the tables that hold ours beside them; needs metrics and manifests only."""
