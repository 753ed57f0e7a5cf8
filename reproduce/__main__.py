"""The paper's experiments: run what is missing, then render all tables and figures, and one report.

    bash run_tables.sh EXPERIMENT DATASET [--seeds N] [--dry_run] [any flag of run_pipeline.sh]
    bash run_tables.sh EXPERIMENT                  theory and hyper-parameters need no DATASET
    bash run_tables.sh --render [RUNS_DIR]         render what there is below RUNS_DIR (default: runs)

DATASET is demo, cloth, movie, music, sport, or any name with --reviews FILE (not needed once its data are there).
Everything lies in runs/DATASET (seed N in seed_N below it), tables, figures and report.html in runs/tables. E-LLMRecs on a model
that --base_model names lie in runs/DATASET-BASE_MODEL, so that no table holds two kinds of backbones. --dry_run prints the
commands of the stages, ready to paste. TEACHER_STATES=1 keeps a teacher's states on disk for all its students (same results; disk
instead of time). An environment variable overrides a value of hyperparameters.sh: LEARNING_RATE=0.001 bash run_tables.sh ...
"""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from reproduce.efficiency.arguments import BenchmarkArguments
from reproduce.experiments import EXPERIMENTS, STUDENT, TEACHER, Backbone, as_text, models_of
from slmrec.checks import at_least
from slmrec.command_line import flags_of, grouped, help_text
from slmrec.errors import InputError
from slmrec.pipeline.flags import ENCODER, OPENP5_STAGE, SASREC, STAGES, StageFlags, share_flags
from slmrec.pipeline.front_door import (
    PipelineArguments,
    absent_stages,
    kept_text_use,
    print_shares,
    require_files,
    run_directory,
)

COMMAND = "bash run_tables.sh EXPERIMENT DATASET"
TEXT_USE = "off"  # the paper's SASRec reads no titles


@dataclass
class TablesArguments(PipelineArguments):
    """Flags of run_tables.sh itself"""

    seeds: int = field(default=1, metadata={"help": "each has its own SASRec and random backbone; tables show their spread"})

    def __post_init__(self):
        at_least("seeds", self.seeds, 1)


def usage() -> str:
    """What `-h` prints."""
    flags = help_text((TablesArguments,), COMMAND).partition("\n\n")[2]
    stages = "Flags of stages have the prefixes that bash run_pipeline.sh -h lists; conventional models have their name as one."
    return f"{__doc__}\n  EXPERIMENT       paper                    what runs\n{as_text()}\n\n{flags}\n\n{stages}"


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    if not argv or "-h" in argv or "--help" in argv:
        print(usage())
        return
    name, *rest = argv
    if name == "--render":
        render_all(Path(rest[0] if rest else "runs"))
    elif name not in EXPERIMENTS:
        near = difflib.get_close_matches(name, EXPERIMENTS, n=1)
        raise InputError(
            f"{name}: no such experiment; " + (f"did you mean {near[0]}?" if near else "bash run_tables.sh -h lists them")
        )
    elif not EXPERIMENTS[name].dataset:
        run_without_data(name, rest)
    elif not rest or rest[0].startswith("-"):
        raise InputError(f"bash run_tables.sh {name} needs a DATASET")
    else:
        sys.exit(run(name, rest[0], rest[1:]))


def run_without_data(name: str, rest: list[str]) -> None:
    if rest:
        raise InputError(f"bash run_tables.sh {name} takes nothing more, not {rest[0]}")
    Path("runs/tables").mkdir(parents=True, exist_ok=True)
    if name == "theory":
        from reproduce import theory

        theory.main(["--output", "runs/tables/theory.json"])
    render_all(Path("runs"), name.replace("-", ""))


def run(experiment: str, dataset: str, argv: list[str]) -> int:
    """Run what is missing and render; the exit status of the first command that fails, else 0."""
    from reproduce.commands import experiment_steps, find_place
    from slmrec.pipeline.run import Record, pending_steps, run_stages

    own, shares = share(experiment, dataset, argv)
    require_files(own, shares)
    given = dict(grouped(argv))
    place = find_place(experiment, dataset, own, shares, kept_text_use(given, run_directory(dataset, given), TEXT_USE))
    require_free(experiment, place.backbone, shares)
    steps = experiment_steps(experiment, place, own.seeds, own.reviews, shares)
    if own.dry_run:
        return run_stages(steps, place.own, dry_run=True)
    print_shares(shares)
    idle = not any(step.output_dir or step is steps[-1] for step in pending_steps(steps, Record(place.own)))
    status = 0 if idle else run_stages(steps, place.own)
    shown = place.own.parent / "tables" / place.own.name / f"{experiment}.md"
    if idle and shown.is_file():
        print(f"{shown.read_text(encoding='utf-8')}\nNothing to do. bash run_tables.sh --render {place.own.parent} renders anew")
    elif not status:
        render_all(place.own.parent, f"{place.own.name}/{experiment}")
    return status


def share(experiment: str, dataset: str, argv: list[str]) -> tuple[TablesArguments, dict[str, list[str]]]:
    """The flags of run_tables.sh itself, and every stage's share of the others, all of them checked."""
    if any(name == "seed" for name, _ in grouped(argv)):
        raise InputError("--seed: a table has seeds 0, 1, 2 ...; --seeds N says how many")
    stages = {name: described for name, described in STAGES.items() if name != "baseline"}
    for name, layers in (("teacher", TEACHER), ("student", STUDENT)):
        stages[name] = replace(stages[name], wired=stages[name].wired | {"num_layers": layers, "seed": 0}, defaults={})
    if any(model.stage == "openp5" for model in models_of(experiment, Backbone())):
        stages["openp5"] = OPENP5_STAGE
    for name in stages.keys() & {"sasrec", "backbone", "openp5"}:
        stages[name] = replace(stages[name], wired=stages[name].wired | {"seed": 0})
    models = models_of(experiment, Backbone())
    encoders = [name for name in dict.fromkeys(m.encoder or m.name for m in models if m.stage == "encoder") if name != "sasrec"]
    given = dict(grouped(argv))
    stages |= encoder_stages(encoders) if encoders and given.keys() - flags_of(TablesArguments).keys() else {}
    absent = absent_stages(dataset, given, TEXT_USE)
    if any(model.text for model in models):
        absent.pop("text", None)
    if EXPERIMENTS[experiment].pretrained:  # whose controls have a backbone of the base model's shape
        absent.pop("backbone", None)
        stages["backbone"] = replace(stages["backbone"], wired=stages["backbone"].wired | {"like": "-", "num_layers": TEACHER})
    if EXPERIMENTS[experiment].kind == "efficiency":
        stages["efficiency"] = StageFlags("python -m reproduce.efficiency", (BenchmarkArguments,), {"data": "-", "json": "-"})
    if not any(model.layers for model in models):
        wanted = ["demo", "data", *(["sasrec", "text", *encoders, "evaluate"] if encoders else []), "efficiency"]
        absent |= {name: f"{experiment} trains no E-LLMRec" for name in stages if name not in wanted}
        argv = to_all_encoders(argv, stages, encoders)
    own, shares = share_flags(argv, TablesArguments, stages, absent, f"bash run_tables.sh {experiment} {dataset}")
    return own, {name: [] for name in (*stages, *encoders)} | shares


def encoder_stages(names: list[str]) -> dict:
    """The flags of conventional models beside SASRec, each with those that the model has."""
    from slmrec.encoders.registry import ENCODERS, architecture_arguments, training_arguments  # which needs torch

    kinds, stages = (architecture_arguments(), training_arguments(), *ENCODER[2:]), {}
    for name in names:
        has = {*ENCODERS[name].architecture_defaults(), *ENCODERS[name].training_defaults, "device", "report_to"}
        lacks = {flag: described.default for flag, described in flags_of(*kinds).items() if flag not in has}
        stages[name] = StageFlags("python train_sr_trad.py", kinds, lacks | SASREC | {"model": name, "seed": 0})
    return stages


def to_all_encoders(argv: list[str], stages: dict, encoders: list[str]) -> list[str]:
    """Where conventional models alone are compared, a flag without a prefix goes to each that has it."""
    words, models = [], [name for name in ("sasrec", *encoders) if encoders and name in stages]
    for name, values in grouped(argv):
        having = [stage for stage in models if "." not in name and stages[stage].has(name)]
        words += [word for stage in having for word in (f"--{stage}.{name}", *values)] or [f"--{name}", *values]
    return words


def require_free(experiment: str, backbone: Backbone, shares: dict[str, list[str]]) -> None:
    """Raise InputError for a flag of the student that every student of the experiment sets itself."""
    students = [model.flags.split() for model in models_of(experiment, backbone) if model.stage == "distill"]
    for name, _ in grouped(shares.get("student", [])):
        if students and all(f"--{name}" in flags for flags in students):
            raise InputError(f"--{name}: {experiment} sets it itself for each of its models")


def render_all(root: Path, shown: str = "") -> None:
    """Summaries, tables, figures and report of everything below `root`; prints one experiment's tables."""
    from reproduce.report import render
    from reproduce.summarise import write_summaries

    if not root.is_dir():
        raise InputError(f"{root}: no such directory; bash run_tables.sh main demo makes runs")
    names = write_summaries(root)
    print(f"{root / 'tables'}: summaries of {', '.join(names) or 'no data set'}")
    page = render(root / "tables")
    if shown:
        print((root / "tables" / f"{shown}.md").read_text(encoding="utf-8"))
    print(f"Written to {page}, tables and figures beside it")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
