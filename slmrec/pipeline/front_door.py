"""What run_pipeline.sh and the scripts of single stages ask before anything else: are these flags right, and whose are they?

    python -m slmrec.pipeline.front_door run_pipeline.sh mine --reviews reviews.json.gz --sasrec.dropout 0.2

The answer is shell code for the script to evaluate: variables and one array of flags per stage, or `-h`. A wrong flag is one line
on stderr and exit status 2. Nothing beyond Python's standard library is needed, so this comes before the environment is made.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

from slmrec.command_line import flags_of, grouped, help_sections, help_text, parse_arguments
from slmrec.data.input_files import input_files
from slmrec.errors import InputError
from slmrec.pipeline.flags import DISTILL, FINETUNE, LLM, OPENP5, RULE, STAGES, share_flags, share_lines

ROOT = Path(__file__).parents[2]
PIPELINE = "bash run_pipeline.sh"
GONE = {  # variables that were read once, and what is given today
    "ENCODER_FLAGS": "flags of SASRec have a prefix: --sasrec.num_epochs 40",
    "BACKBONE_FLAGS": "flags of the backbone have a prefix: --backbone.hidden_size 64",
}


@dataclass
class PipelineArguments:
    """Flags of the pipeline itself."""

    reviews: str | None = field(
        default=None,
        metadata={
            "help": "your reviews, actions or sequences: a file, a folder, or a pattern in quotes; "
            "not needed for the demo, the paper's data, and data that are there"
        },
    )
    base_model: str | None = field(
        default=None,
        metadata={
            "help": f"{flags_of(*FINETUNE)['base_model'].help}; default: the paper's for its data, else a small random one"
        },
    )
    run_dir: str | None = field(default=None, metadata={"help": "where everything goes; default: runs/NAME"})
    dry_run: bool = field(default=False, metadata={"help": "only say what would run, as commands to paste"})


def main(argv: list[str] | None = None) -> None:
    script, *argv = sys.argv[1:] if argv is None else argv
    scripts = {"run_pipeline.sh": pipeline, "run_finetune.sh": finetune, "run_distill.sh": distill, "run_openp5.sh": openp5}
    print("\n".join(scripts[script](argv)))


OWN_PREFIX = "OPENP5_"  # of the variables in hyperparameters.sh that are Open-P5's alone


def wants_help(argv: list[str]) -> bool:
    return "-h" in argv or "--help" in argv


def shown(text: str) -> list[str]:
    """Shell code that prints a text and ends the script well."""
    return [f"printf '%s\\n' {shlex.quote(text)}", "exit 0"]


def assigned(name: str, value: str | list[str]) -> str:
    """Shell code that sets a variable, or an array."""
    return f"{name}=({shlex.join(value)})" if isinstance(value, list) else f"{name}={shlex.quote(value)}"


# -- run_pipeline.sh ------------------------------------------------------------------------------------------------------------


def pipeline(argv: list[str]) -> list[str]:
    """Shell code that sets DATASET, RUN_DIR, REVIEWS, DRY_RUN, BASE_MODEL where it is given, and <STAGE>_FLAGS of every stage.

    What decides on directories too (layers, titles) is exported under the name that it has in hyperparameters.sh.
    """
    if wants_help(argv):
        return shown(pipeline_help())
    for variable, instead in GONE.items():
        if os.environ.get(variable):
            raise InputError(f"{variable} is set, which nothing reads any more; {instead}")
    dataset, argv = named(argv)
    given = dict(grouped(argv))
    run_dir, text_use = run_directory(dataset, given), "off" if dataset in ("demo", *PAPER_DATA) else "auto"
    absent = absent_stages(dataset, given, text_use)
    if dataset == "demo" and "reviews" not in given:
        absent.pop("text", None)  # for its row from titles
    own, shares = share_flags(argv, PipelineArguments, STAGES, absent, PIPELINE)
    require_files(own, shares)
    print_shares(shares)
    kept = kept_text_use(given, run_dir, text_use)
    code = [assigned("DATASET", dataset), assigned("RUN_DIR", run_dir)]
    code += [f"export {assigned('TEXT_USE', kept)}"] if kept else []
    code += [assigned("REVIEWS", own.reviews or ""), assigned("DRY_RUN", "1" if own.dry_run else "")]
    code += [assigned("BASE_MODEL", own.base_model)] if own.base_model else []
    for stage, flag, variable in DECIDING:
        values = dict(grouped(shares.get(stage, []))).get(flag)
        code += [f"export {assigned(variable, values[0])}"] if values else []
    return code + [assigned(f"{stage.upper()}_FLAGS", shares.get(stage, [])) for stage in STAGES]


DECIDING = (
    ("teacher", "num_layers", "NUM_LAYERS_TEACHER"),
    ("student", "num_layers", "NUM_LAYERS_STUDENT"),
    ("sasrec", "text_use", "TEXT_USE"),
)


def named(argv: list[str]) -> tuple[str, list[str]]:
    """NAME, and what follows it. Raises InputError where there are flags but no NAME, or NAME is no name of a directory."""
    if not argv:
        return "demo", []
    if argv[0].startswith("-"):
        raise InputError(f"NAME is missing before {argv[0]}: {PIPELINE} NAME {argv[0]} ... (demo is the embedded demo)")
    if not argv[0].strip() or "/" in argv[0] or argv[0].startswith("."):
        raise InputError(f"{argv[0]!r}: the first word is a NAME for the run; --run_dir says where it goes")
    return argv[0], argv[1:]


def run_directory(dataset: str, given: dict[str, list[str]]) -> str:
    return (given.get("run_dir") or [f"runs/{dataset}"])[-1]


def absent_stages(dataset: str, given: dict[str, list[str]], text_use: str) -> dict[str, str]:
    """The stages that do not run with these flags, and why; `text_use` is the command's own."""
    absent, run_dir = {}, run_directory(dataset, given)
    if dataset != "demo" or "reviews" in given:
        absent["demo"] = "only the demo's reviews are generated (NAME demo, no --reviews)"
    if "reviews" not in given and dataset not in ("demo", *PAPER_DATA) and (Path(run_dir) / "data/manifest.json").is_file():
        absent["data"] = f"{run_dir}/data is there and is used as it is; a change to the data needs --reviews FILE"
    if (asked_text_use(given) or text_use_there(run_dir) or text_use) == "off":
        wanted = (
            "are not read with --text_use off" if asked_text_use(given) else "are only read with --text_use auto, start, sum, ..."
        )
        absent["text"] = f"titles {wanted}"
    if given.get("base_model") or os.environ.get("BASE_MODEL") or dataset in PAPER_DATA:
        absent["backbone"] = "no backbone is made, as there is a base model"
    return absent


PAPER_DATA = {  # -> what Amazon's release of 2018 calls it, as in datasets/names.sh
    "cloth": "Clothing_Shoes_and_Jewelry",
    "movie": "Movies_and_TV",
    "music": "CDs_and_Vinyl",
    "sport": "Sports_and_Outdoors",
}


def asked_text_use(given: dict[str, list[str]]) -> str:
    """How SASRec is to use titles, by a flag or the environment; "" where neither says so."""
    return (given.get("sasrec.text_use") or given.get("text_use") or [os.environ.get("TEXT_USE", "")])[-1]


def text_use_there(run_dir: str | Path) -> str:
    """How the SASRec of a run was told to use titles, by the command that trained it; "" where there is none."""
    try:
        command = json.loads((Path(run_dir) / "sasrec" / "manifest.json").read_text(encoding="utf-8"))["command"]
        words = shlex.split(command) if isinstance(command, str) else []
    except (OSError, ValueError, LookupError, TypeError, RecursionError):  # the stages will say what is wrong
        words = []
    if not words:
        return ""
    first = next((place for place, word in enumerate(words) if word.startswith("--")), len(words))
    given = dict(grouped(words[first:]))
    return (given.get("text_use") or ["start" if "text" in given else "off"])[-1]


def kept_text_use(given: dict[str, list[str]], run_dir: str | Path, text_use: str) -> str:
    """What SASRec's use of titles stays, as nothing asks for another one; says so where the command's own is another.

    run_pipeline.sh and run_tables.sh share a directory, and by default one reads titles and the other does not: neither is to
    train the other's models anew unasked.
    """
    there = "" if asked_text_use(given) else text_use_there(run_dir)
    if there not in ("", text_use):
        print(f"{run_dir}/sasrec keeps --text_use {there}; give --text_use {text_use} to train it anew", file=sys.stderr)
    return there


def require_files(own: PipelineArguments, shares: dict[str, list[str]]) -> None:
    given = dict(grouped(shares.get("data", [])))
    input_files([own.reviews] if own.reviews else [])  # files, a pattern or a folder
    for path in (given[name][-1] for name in ("meta", "item_table", "user_table") if name in given):
        if not Path(path).is_file():
            raise InputError(f"{path}: no such file")


def print_shares(shares: dict[str, list[str]], prefix: str = "") -> None:
    """On stderr, before anything runs: which stage gets which of the flags, and what the environment overrides."""
    for line in [*share_lines(shares), *overridden(prefix)]:
        print(line, file=sys.stderr)


def overridden(prefix: str = "") -> list[str]:
    """One line about the variables of hyperparameters.sh that the environment has, those of Open-P5 (`prefix`) or the
    others; none where there are none."""
    script = (ROOT / "hyperparameters.sh").read_text(encoding="utf-8")
    names = dict.fromkeys(re.findall(r"\b([A-Z][A-Z0-9_]+)=", script))
    given = [f"{name}={shlex.quote(os.environ[name])}" for name in names if name in os.environ]
    given = [word for word in given if word.startswith(OWN_PREFIX) == bool(prefix) or word.startswith("BASE_MODEL=")]
    return [f"from the environment: {' '.join(given)}"] if given else []


def pipeline_help() -> str:
    """The head of the script, then every stage with its flags, those that the pipeline sets itself left out."""
    sections = [("The pipeline itself", "--", flags_of(PipelineArguments))]
    for stage, described in STAGES.items():
        if stage not in LLM:
            sections.append((f"{stage} ({described.command})", f"--{stage}.", described.flags()))
    every, student = STAGES["teacher"].flags(), STAGES["student"].flags()
    sections.append(
        ("teacher, baseline and student, alone (--teacher. ...) or together (finetune.py, distill.py)", "--llm.", every)
    )
    sections.append(("student (distill.py)", "--student.", {name: flag for name, flag in student.items() if name not in every}))
    rule = "\n".join(textwrap.wrap(RULE, 100))
    return f"{script_head('run_pipeline.sh')}\n\n{rule}\n\n{help_sections(f'{PIPELINE} [NAME [flags]]', '', sections)}"


def script_head(script: str) -> str:
    """The comment that a shell script begins with."""
    lines = (ROOT / script).read_text(encoding="utf-8").splitlines()[1:]
    head = lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in head)


# -- run_finetune.sh, run_distill.sh and run_openp5.sh --------------------------------------------------------------------------


BY_DATASET = {  # and the first words of the command are the output directory and, of a student, the teacher
    "data": "runs/DATASET/data",
    "embeddings": "runs/DATASET/embeddings",
    "base_model": "the paper's for its data, else runs/DATASET/backbone",
    "output_dir": None,
}


def finetune(argv: list[str]) -> list[str]:
    """Shell code that sets OUTPUT_DIR, and BASE_MODEL where it is given."""
    return single("run_finetune.sh", ["OUTPUT_DIR"], argv, FINETUNE, {})


def distill(argv: list[str]) -> list[str]:
    """Shell code that sets TEACHER (or online), OUTPUT_DIR, and BASE_MODEL where it is given."""
    online = argv[:1] == ["online"]
    wired = {"online": True} if online else {"teacher": "-"}
    return single("run_distill.sh", ["TEACHER", "OUTPUT_DIR"], argv, DISTILL, wired)


def openp5(argv: list[str]) -> list[str]:
    """Shell code that sets OUTPUT_DIR, and BASE_MODEL where it is given."""
    return single("run_openp5.sh", ["OUTPUT_DIR"], argv, OPENP5, {}, OWN_PREFIX)


def single(script: str, places: list[str], argv: list[str], kinds: tuple[type, ...], wired: dict, prefix: str = "") -> list[str]:
    """Check the flags of one stage's script, whose first words are directories and whose values come from hyperparameters.sh."""
    command = f"[DATASET=NAME] bash {script} {' '.join(places)}"
    if wants_help(argv):
        return shown(f"{script_head(script)}\n\n{help_text(kinds, command, **BY_DATASET)}")
    if len(argv) < len(places) or any(not word or word.startswith("-") for word in argv[: len(places)]):
        raise InputError(f"usage: {command} [flags] (bash {script} -h lists them)")
    flags = argv[len(places) :]
    print_shares({}, prefix)
    parse_arguments(kinds, flags, command=f"bash {script}", **BY_DATASET | {"output_dir": "-"} | wired)
    base_model = dict(grouped(flags)).get("base_model")
    code = [assigned(name, value) for name, value in zip(places, argv, strict=False)]
    return code + ([assigned("BASE_MODEL", base_model[-1])] if base_model else [])


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
