"""Memory of training by size of the base model, batch and precision, computed.

    python -m reproduce.efficiency.memory_table > results/efficiency/memory_computed.md

h is the hidden size, f that of the feed-forward layers, k the share of heads that have keys and values of their own. A layer of
LLaMA has 2 h^2 (1 + k) + 3 h f + 2 h weights. A frozen one takes 2 bytes in bf16, 4 in fp32, and with --load_in_4bit half a
byte and a scale of 4 bytes for each 64, beside token embeddings in bf16. LoRA of rank 16 on gate, up and down takes 16 bytes a
weight: value, gradient and AdamW's two moments. A step keeps about 16.5 bytes per token, layer and (h + f) in bf16 and twice
that in fp32, or with --gradient_checkpointing the 4 h bytes of each layer's input and the inside of one layer. What is left
out: the catalogue's softmax (at most 0.3 GiB), the item embeddings, what the CUDA libraries take, and with 4 bits the matrix of
a layer that is unpacked for its product (2 h f bytes).
"""

from __future__ import annotations

from dataclasses import dataclass

from reproduce.table import markdown_rows

GIB, VOCABULARY, RANK = 2**30, 32_000, 16
TOKENS_A_ROW = 17.6  # of exact encoding at Beauty's lengths: 4,500 in a batch of 256
BYTES = {"fp32": 4.0, "bf16": 2.0, "4 bits": 0.5 + 4 / 64}  # of a weight inside a layer
TOKEN_BYTES = {"fp32": 4.0, "bf16": 2.0, "4 bits": 2.0}
KEPT = {"fp32": 33.0, "bf16": 16.5, "4 bits": 16.5}


@dataclass(frozen=True)
class Shape:
    """Of a LLaMA: hidden size, feed-forward size, layers in all, share of key-value heads."""

    name: str
    hidden: int
    inner: int
    layers: int
    key_value_share: float = 1.0

    def layer_weights(self) -> int:
        return int(2 * self.hidden**2 * (1 + self.key_value_share) + 3 * self.hidden * self.inner + 2 * self.hidden)

    def frozen(self, layers: int, precision: str) -> float:
        """Bytes of a frozen backbone of so many layers with its token embeddings."""
        return VOCABULARY * self.hidden * TOKEN_BYTES[precision] + layers * self.layer_weights() * BYTES[precision]

    def adapters(self, layers: int) -> float:
        return 16.0 * layers * 3 * RANK * (self.hidden + self.inner)

    def activations(self, layers: int, rows: int, precision: str, recomputed: bool) -> float:
        inside = KEPT[precision] * (self.hidden + self.inner)
        return rows * TOKENS_A_ROW * (layers * 4 * self.hidden + inside if recomputed else layers * inside)


SHAPES = (Shape("1.1B", 2048, 5632, 22, 1 / 8), Shape("7B", 4096, 11_008, 32), Shape("13B", 5120, 13_824, 40))
SETTINGS = tuple(
    (precision, rows, recomputed)
    for precision, given in {"fp32": (256,), "bf16": (256, 32), "4 bits": (32,)}.items()
    for rows in given
    for recomputed in ((False,) if precision == "fp32" else (False, True))
)


def rows_of_table() -> list[list[str]]:
    """For each shape and setting GiB of: the teacher of 8 layers; the student of 4 with its frozen teacher, whose first layers it
    shares, and what that would be without sharing; and the whole model."""
    table = []
    for shape in SHAPES:
        for precision, rows, recomputed in SETTINGS:
            kept = lambda layers: shape.activations(layers, rows, precision, recomputed) + shape.adapters(layers)  # noqa: B023
            teacher, student = shape.frozen(8, precision), shape.frozen(4, precision)
            sizes = (teacher + kept(8), teacher + kept(4), teacher + student + kept(4))
            whole = shape.frozen(shape.layers, precision) + kept(shape.layers)
            numbers = [f"{size / GIB:.1f}" for size in (*sizes, whole)]
            table.append([shape.name, precision, str(rows), "yes" if recomputed else "no", *numbers])
    return table


def main() -> None:
    header = [
        "model",
        "frozen weights",
        "rows a step",
        "checkpointing",
        "teacher (8)",
        "student (4<-8)",
        "not shared",
        "all layers",
    ]
    print("\n".join(markdown_rows(header, rows_of_table())))


if __name__ == "__main__":
    main()
