"""Propositions 1 and 2 (Section 6, Appendix A) computed: a stack of attention layers as steps of gradient descent.

python -m reproduce.theory --output results/tables/theory.json

The paper's layer is H(k) = (I + A(k)) H(k-1) (Eq. 7): attention and the residual path alone, without values, norms or the MLP.
Its two norms are taken as Frobenius norms, whose gradient is that of Eq. 12.

Proposition 1: one descent step on ||H - (I + A(k)) H(k-1)||^2 from H(k-1) gives H(k). Appendix A.1 says with step size 1, but
Eq. 14 drops the factor 2 of Eq. 12: step size 1 ends at H(k-1) + 2 A(k) H(k-1), step size 1/2 at H(k). Both are measured.
Proposition 2: one step of size mu/2 on ||H - C* H(0)||^2 from H(0), with C* = (A* - (1 - mu) I) / mu and A* the product of all
I + A(k), gives H(K), the output of K layers. C* exists for any matrix A*, and is no attention matrix: its rows sum to
(2^K - 1 + mu) / mu.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from slmrec.artifacts import git_state, library_versions, write_json
from slmrec.checks import seed_in_range
from slmrec.command_line import parse_arguments

STACKS = [(layers, tokens, width) for tokens, width in ((12, 16), (99, 128)) for layers in (1, 4, 8, 32)]
STEP, PRINTED_STEP = 0.5, 1.0
MU = (0.01, 0.1, 0.5, 1.0, 2.0)
TOLERANCE = 1e-10  # of relative errors


def causal_attention(rng: np.random.Generator, layers: int, tokens: int) -> np.ndarray:
    """Attention matrices float64 [K, n, n] of random logits: rows sum to 1, nothing above the diagonal."""
    logits = np.where(np.tri(tokens, dtype=bool), rng.normal(size=(layers, tokens, tokens)), -np.inf)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def layer_outputs(attention: np.ndarray, inputs: np.ndarray) -> list[np.ndarray]:
    """H(0) to H(K), each [n, d], by Eq. 7; attention [K, n, n], inputs H(0) [n, d]."""
    states = [inputs]
    for matrix in attention:
        states.append(states[-1] + matrix @ states[-1])
    return states


def gradient(states: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Eq. 12: the gradient of ||states - target||^2 with respect to states [n, d]."""
    return 2 * (states - target)


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def proposition_1_error(attention: np.ndarray, states: list[np.ndarray], step: float) -> float:
    """Largest error over the layers of one descent step of this size (Eq. 13) against the layer's output.

    attention [K, n, n], states as from `layer_outputs`.
    """
    errors = []
    for matrix, before, after in zip(attention, states, states[1:], strict=False):
        target = (np.eye(len(matrix)) + matrix) @ before
        errors.append(relative_error(before - step * gradient(before, target), after))
    return max(errors)


def proposition_2_error(attention: np.ndarray, states: list[np.ndarray], mu: float) -> float:
    """Error of one descent step of size mu/2 from H(0) (Eq. 22) against H(K); arguments as above."""
    identity = np.eye(attention.shape[-1])
    product = identity
    for matrix in attention:
        product = (identity + matrix) @ product  # A*, Eq. 20
    target = (product - (1 - mu) * identity) / mu @ states[0]
    return relative_error(states[0] - mu / 2 * gradient(states[0], target), states[-1])


def measure(seed: int, layers: int, tokens: int, width: int) -> dict:
    """The errors of one random stack of K = layers, n = tokens, d = width; relative, all in float64."""
    rng = np.random.default_rng([seed, layers, tokens, width])
    attention = causal_attention(rng, layers, tokens)
    states = layer_outputs(attention, rng.normal(size=(tokens, width)))
    by_mu = {str(mu): proposition_2_error(attention, states, mu) for mu in MU}
    found = {"layers": layers, "tokens": tokens, "width": width, "step": STEP, "printed_step": PRINTED_STEP}
    found["proposition_1_error"] = proposition_1_error(attention, states, STEP)
    found["proposition_1_error_printed_step"] = proposition_1_error(attention, states, PRINTED_STEP)
    return found | {"proposition_2_error": max(by_mu.values()), "proposition_2_error_by_mu": by_mu}


@dataclass
class TheoryArguments:
    """Where the random stacks come from and where the errors go."""

    output: str = field(default="results/tables/theory.json", metadata={"help": "JSON file of the errors"})
    seed: int = field(default=0, metadata={"help": "of the attention logits and the embeddings"})

    def __post_init__(self):
        seed_in_range("seed", self.seed)


def main(argv: list[str] | None = None) -> None:
    (arguments,) = parse_arguments(TheoryArguments, argv, description=__doc__)
    stacks = [measure(arguments.seed, *size) for size in STACKS]
    largest = max(stack[name] for stack in stacks for name in ("proposition_1_error", "proposition_2_error"))
    found = {"experiment": "theory", "seed": arguments.seed, "stacks": stacks, "tolerance": TOLERANCE, "largest_error": largest}
    found |= {"holds": largest < TOLERANCE, "command": f"python -m reproduce.theory --seed {arguments.seed}", **git_state()}
    found["libraries"] = {name: version for name, version in library_versions().items() if name in ("python", "numpy")}
    Path(arguments.output).parent.mkdir(parents=True, exist_ok=True)
    write_json(Path(arguments.output), found)
    printed = min(stack["proposition_1_error_printed_step"] for stack in stacks)
    print(f"Propositions 1 (step 1/2) and 2: largest relative error {largest:.1e} over {len(stacks)} stacks")
    print(f"Proposition 1 with step size 1, as printed: relative error at least {printed:.2f}")
    print(f"Written to {arguments.output}")
    if not found["holds"]:
        print(f"failed: a proposition does not hold within a relative error of {TOLERANCE:.0e}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    from slmrec.runtime import run_main

    run_main(main)
