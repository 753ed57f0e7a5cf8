"""The result of a benchmark as text for a terminal."""

from __future__ import annotations

from reproduce.published import TABLE_1

QUIET = 0.9  # of the wall time on a CPU; timings taken with less are marked


def render(result: dict) -> str:
    """All parts that were measured."""
    parts = {
        "encoding": _encoding,
        "models": _models,
        "shares": _shares,
        "parameters": _parameters,
        "memory_mib": _memory,
        "precision": _precision,
        "tables": _tables,
    }
    head = f"Users: {result['lengths']}\nDevice: {result['environment']['device']}, {result['configuration']['precision']}"
    if result.get("processor_share", 1.0) < QUIET:
        head += (
            f"\nOther programs ran meanwhile (this one had {result['processor_share']:.0%} of its processors): times are rough"
        )
    return "\n\n".join([head] + [show(result[name]) for name, show in parts.items() if name in result])


def grid(header: list[str], rows: list[list]) -> str:
    """Columns aligned, numbers with four significant digits."""
    cells = [header] + [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _encoding(part: dict) -> str:
    rows = [[name, *_speedup(part[key])] for key, name in (("forward", "forward"), ("train", "training step"))]
    header = ["Reference against exact", "reference s", "exact s", "speed-up", "predicted", "achieved", "utilisation"]
    tokens = part["tokens"]
    lines = [
        grid(header, rows),
        f"tokens per row: reference {tokens['reference_first_layer_per_row']:.1f}, "
        f"exact {tokens['exact_first_layer_per_row']:.1f} (last layer {tokens['exact_last_layer_per_row']:.1f}), "
        f"least possible {tokens['minimum_per_row']:.1f}; "
        f"ratio {tokens['token_ratio']:.2f} at {tokens['mean_history']:.1f} items a row",
        f"largest difference between user vectors: {part['max_abs_diff']:.1e}; "
        f"matrix products: {part['matrix_product_gflops']:.0f} GFLOP/s",
    ]
    return "\n".join(lines)


def _speedup(part: dict) -> list[float]:
    return [*part["seconds"].values(), part["speedup"], part["predicted"], part["achieved"], part["utilisation"]]


def _models(part: dict) -> str:
    rows = [[f"{name}, {mode}", *_speedup(entry)] for mode in ("forward", "train") for name, entry in part[mode].items()]
    return grid([f"Against {part['baseline']}", "baseline s", "s", "speed-up", "predicted", "achieved", "utilisation"], rows)


def _shares(part: dict) -> str:
    training, ranking = part["training"], part["ranking"]
    users = ranking["users"]
    rows = [[f"training: {name}", share, training["seconds"][name]] for name, share in training["share"].items()]
    rows += [[f"ranking: {name}", share, ranking["seconds_per_user"][name] * users] for name, share in ranking["share"].items()]
    return grid(["Time, exact encoding", "share", "seconds"], rows) + f"\n(one training step; ranking {users:,} users)"


def _parameters(part: dict) -> str:
    rows = [[name, entry["parameters"], entry["trained_parameters"]] for name, entry in part.items()]
    return grid(["Parameters of the decoder", "inference", "trained"], rows)


def _memory(part: dict) -> str:
    rows = [[name, *entry.values()] for name, entry in part.items()]
    return grid(["Peak memory, MiB", "in all", "by the step"], rows)


def _precision(part: dict) -> str:
    rows = [[mode, *part[mode]["seconds"].values(), part[mode]["bf16_speedup"]] for mode in ("forward", "train")]
    rates = part["matrix_product_gflops"]
    rows.append(["matrix products, GFLOP/s", rates["fp32"], rates["bf16"], rates["bf16"] / rates["fp32"]])
    relative = f"\nrelative difference of the user vectors: {part['relative_difference']:.1e}"
    return grid(["Exact encoding, seconds", "fp32", "bf16", "speed-up"], rows) + relative


def _tables(part: dict) -> str:
    seven = [
        [f"{name} [{who}]", *(value for dataset in TABLE_1 for value in row[dataset])]
        for who, methods in _shortened(part["Table 7"]).items()
        for name, row in methods.items()
    ]
    heads = {
        "Table 5": ["Tr time (h)", "Inf time (h)", "Tr params (B)", "Inf params (B)"],
        "Table 8": ["Inf time (h)"],
    }
    texts = [grid(["Table 7", *(f"{dataset} {what}" for dataset in TABLE_1 for what in ("Tr (h)", "Inf (h)"))], seven)]
    for table, columns in heads.items():
        rows = [[f"{name} [{who}]", *row] for who, methods in _shortened(part[table]).items() for name, row in methods.items()]
        texts.append(grid([table, *columns], rows))
    return "\n\n".join(texts) + f"\n{list(part['Table 7'])[1]}"


def _shortened(table: dict) -> dict:
    return dict(zip(("paper", "ours"), table.values(), strict=True))
