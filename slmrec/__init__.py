"""SLMRec: distilling large language models into small ones for sequential recommendation (ICLR 2025)."""

import importlib.util
import logging
import sys

__version__ = "0.1.0"

# Run from the repository root, Python takes our folder datasets/ for a (namespace) package, and transformers takes that for the
# Hugging Face library of the same name. None in sys.modules says that there is no such module; an installed one is left alone.
_found = importlib.util.find_spec("datasets")
if _found is not None and _found.origin is None:
    sys.modules["datasets"] = None  # type: ignore[assignment]  # Python allows it, its type stubs do not

# transformers imports torchao wherever it is installed, and that tells as it is imported of everything that only a GPU could use
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)


def load(directory, device="auto", precision="fp32"):
    """A trained model, ready to recommend: see `slmrec.recommendation.load`, which is imported when it is asked for."""
    from slmrec.recommendation import load as load_model

    return load_model(directory, device, precision)
