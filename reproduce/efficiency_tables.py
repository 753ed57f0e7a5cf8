"""The tables of the benchmark: speed, memory, parameters, and the hours of Tables 5, 7 and 8 beside the paper's."""

from __future__ import annotations

from reproduce import published
from reproduce.model_tables import subject
from reproduce.table import Cell, Table, number, shown

HOURS = ["training hours per epoch", "inference hours"]
PARAMETERS = ["trained parameters (billions)", "parameters at inference (billions)"]
# What the benchmark calls a method -> the paper's name
PAPER_METHODS = {
    f"{ours}{encoding}": paper
    for ours, paper in {"E4SRec_32": "E4SRec", "SLMRec_4<-8": "SLMRec_4<-8", "SASRec": "SASRec", "MAERec": "MAERec"}.items()
    for encoding in ("", " reference", " exact")
}
NOTE = (
    "Ours: seconds per row on this machine, extrapolated to the users, items and mean lengths of Table 1. "
    "Paper: one A100 and LLaMA-7B, so ratios between methods can be compared, hours cannot. Its E4SRec has 32 layers, and its "
    "Open-P5 generates 1,000 candidates."
)


def efficiency_tables(summary: dict) -> list[Table]:
    """What the benchmark measured: speed-ups, memory, parameters, and the hours of Tables 5, 7 and 8."""
    benchmark = summary["benchmark"]
    builders = {"encoding": speed_table, "models": ratio_table, "memory_mib": memory_table, "parameters": parameter_table}
    builders |= {"shares": share_table, "precision": precision_table}
    found = [build(summary) for part, build in builders.items() if part in benchmark]
    return found + (hours_tables(summary) if "tables" in benchmark else [])


def speed_table(summary: dict) -> Table:
    """Seconds of two sides that ran in turns, and what their arithmetic predicts."""
    benchmark = summary["benchmark"]
    entries = [(mode, benchmark["encoding"][mode]) for mode in ("forward", "train", "answering") if mode in benchmark["encoding"]]
    models = benchmark.get("models", {})
    entries += [(mode, entry) for mode in ("forward", "train") for entry in models.get(mode, {}).values()]
    rows = []
    for mode, entry in entries:
        (slow, slow_seconds), (fast, fast_seconds) = entry["seconds"].items()
        speed = [shown(entry[name], ".2f") for name in ("speedup", "predicted", "utilisation")]
        rows.append([mode, slow, number(slow_seconds), fast, number(fast_seconds), *speed])
    header = ["Pass", "Side", "Seconds per batch", "Other side", "Its seconds per batch", "Speed-up", "Predicted", "Utilisation"]
    tokens, encoding = benchmark["encoding"]["tokens"], benchmark["encoding"]
    note = (
        "Predicted: ratio of the arithmetic. Utilisation: of the rate of a large matrix product "
        f"({encoding['matrix_product_gflops']:.0f} GFLOP/s), by the faster side. Tokens per row: "
        f"reference {tokens['reference_first_layer_per_row']:.1f}, exact {tokens['exact_first_layer_per_row']:.1f} (last layer "
        f"{tokens['exact_last_layer_per_row']:.1f}), least possible {tokens['minimum_per_row']:.1f}, at "
        f"{tokens['mean_history']:.1f} items a row. Largest difference between user vectors: {encoding['max_abs_diff']:.1e}. "
        f"Measured on {benchmark['environment']['device']}, {benchmark['lengths']}."
    )
    return Table(subject(summary), "speed", header, rows, note, file="speed")


def ratio_table(summary: dict) -> Table:
    """Table 5 as ratios, which can be compared across machines: how many times as much E4SRec as published takes."""
    models, parameters = summary["benchmark"]["models"], summary["benchmark"]["parameters"]
    (cached,) = (name for name in models["train"] if name.endswith("exact, cached teacher"))
    exact = cached.removesuffix(", cached teacher")
    counts = {name.split("_")[0]: count for name, count in parameters.items() if "LLaMA" not in name}
    paper = [slow / fast for slow, fast in zip(published.TABLE_5["E4SRec"], published.TABLE_5["SLMRec_4<-8"], strict=True)]
    timed = [
        ("Inference", paper[1], models["forward"][exact]),
        ("Training, the teacher running along", paper[0], models["train"][exact]),
        ("Training, the teacher's states cached", None, models["train"][cached]),
    ]
    rows = [[name, *(shown(value, ".1f") for value in (theirs, one["speedup"], one["predicted"]))] for name, theirs, one in timed]
    for name, theirs, key in (
        ("Trained parameters", paper[2], "trained_parameters"),
        ("Parameters at inference", paper[3], "parameters"),
    ):
        rows.append([name, *(shown(value, ".1f") for value in (theirs, counts["E4SRec"][key] / counts["SLMRec"][key], None))])
    header = [f"{models['baseline']} over {exact}", "paper (E4SRec_32)", "Measured here", "Predicted by the token counts"]
    device, lengths = summary["benchmark"]["environment"]["device"], summary["benchmark"]["lengths"]
    note = f"Measured on {device}, {lengths}, sides in turn in one run."
    return Table(subject(summary), "ratios of Table 5", header, rows, note, file="ratios")


def memory_table(summary: dict) -> Table:
    memory = summary["benchmark"]["memory_mib"]
    rows = [[name, *(shown(entry[part], ",.1f") for part in ("peak", "step"))] for name, entry in memory.items()]
    return Table(subject(summary), "memory", ["Step", "Peak (MiB)", "Added by the step (MiB)"], rows, file="memory")


def parameter_table(summary: dict) -> Table:
    counts = summary["benchmark"]["parameters"]
    rows = [[name, number(entry["parameters"]), number(entry["trained_parameters"])] for name, entry in counts.items()]
    return Table(subject(summary), "parameters", ["Model", "Parameters", "Trained"], rows, file="parameters")


def share_table(summary: dict) -> Table:
    """Where the time of a training step and of ranking goes, with exact encoding."""
    training, ranking = (summary["benchmark"]["shares"][part] for part in ("training", "ranking"))
    users = ranking["users"]
    rows = [
        ["training step", name, shown(share, ".3f"), number(training["seconds"][name])]
        for name, share in training["share"].items()
    ]
    for name, share in ranking["share"].items():
        rows.append([f"ranking {users:,} users", name, shown(share, ".3f"), number(ranking["seconds_per_user"][name] * users)])
    return Table(subject(summary), "shares of time", ["Of", "Part", "Share", "Seconds"], rows, file="shares")


def precision_table(summary: dict) -> Table:
    """float32 against bf16, with exact encoding."""
    part = summary["benchmark"]["precision"]
    rates = part["matrix_product_gflops"]
    rows = [
        [mode, *map(number, part[mode]["seconds"].values()), number(part[mode]["bf16_speedup"])] for mode in ("forward", "train")
    ]
    rows.append(["matrix products, GFLOP/s", number(rates["fp32"]), number(rates["bf16"]), number(rates["bf16"] / rates["fp32"])])
    note = f"Seconds, but for the last row. Relative difference of the user vectors: {part['relative_difference']:.1e}."
    return Table(subject(summary), "precision", ["Pass", "fp32", "bf16", "bf16 over fp32"], rows, note, file="precision")


def hours_tables(summary: dict) -> list[Table]:
    """Tables 5, 7 and 8: ours extrapolated to the paper's data sets, the paper's printed."""
    five, seven, eight = (_ours(summary, f"Table {index}") for index in (5, 7, 8))
    detailed = {(method, dataset): hours for method, row in seven.items() for dataset, hours in row.items()}
    printed = {(method, dataset): hours for method, row in published.TABLE_7.items() for dataset, hours in row.items()}
    inference = {(method,): row[:1] for method, row in published.TABLE_8.items()}
    five, eight, paper_five = ({(method,): row for method, row in table.items()} for table in (five, eight, published.TABLE_5))
    return [
        beside_paper(summary, "means over the paper's data sets (Table 5)", five, paper_five, HOURS + PARAMETERS, "table-5"),
        beside_paper(summary, "each of the paper's data sets (Table 7)", detailed, printed, HOURS, "table-7"),
        beside_paper(summary, "inference (Table 8)", eight, inference, HOURS[1:], "table-8"),
    ]


def _ours(summary: dict, name: str) -> dict:
    """The benchmark's side of one of its tables; the other side is the paper's."""
    (found,) = (table for key, table in summary["benchmark"]["tables"][name].items() if key.startswith("ours"))
    return found


def paper_method(method: str) -> str:
    """The paper's name of a method of ours; Open-P5 is timed at some depth, in several ways."""
    return "Open-P5" if method.startswith("Open-P5") else PAPER_METHODS.get(method, method)


def method_cell(method: str, dataset: str = "") -> Cell:
    return Cell(f"{method}, {dataset}" if dataset else method, {"Method": method} | ({"Data set": dataset} if dataset else {}))


def beside_paper(summary: dict, detail: str, ours: dict, paper: dict, columns: list[str], file: str) -> Table:
    """Methods with our numbers and, where the paper has the method, its own; then the paper's others.

    Keys are (method,) or (method, data set).
    """
    matched = {key: (paper_method(key[0]), *key[1:]) for key in ours}
    dashes = [None] * len(columns)
    pairs = [(key, values, paper.get(matched[key], dashes)) for key, values in ours.items()]
    pairs += [(key, dashes, values) for key, values in paper.items() if key not in matched.values()]
    rows = [[method_cell(*key), *map(number, mine), *(shown(value, ",") for value in theirs)] for key, mine, theirs in pairs]
    header = ["Method", *columns, *(f"paper {column}" for column in columns)]
    return Table(subject(summary), detail, header, rows, NOTE, file=file)
