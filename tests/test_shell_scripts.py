"""The shell scripts: hyper-parameters by data set and kind of backbone, refusals that write nothing, environments, old shells."""

from __future__ import annotations

import ensurepip
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = [*ROOT.glob("*.sh"), *ROOT.glob("datasets/*.sh"), *ROOT.glob("scripts/*.sh")]
PYTHON = Path(sys.executable).parent


def run(script, *arguments, cwd, path=f"{PYTHON}:{os.environ['PATH']}", **variables):
    environment = {name: value for name, value in os.environ.items() if name not in ("BASE_MODEL", "DATASET")} | variables
    command = ["bash", str(script), *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment | {"PATH": path}, capture_output=True, text=True, timeout=100, check=False
    )


def shell(code, cwd, *arguments, **variables):
    script = Path(cwd) / "code.sh"
    script.write_text(f"set -euo pipefail\n{code}\n", encoding="utf-8")
    return run(script, *arguments, cwd=cwd, **variables)


# -- hyper-parameters -----------------------------------------------------------------------------------------------------------

TABLE_6 = {"TARGETS": "last", "ITEM_DROPOUT": "0.0", "LAMBDA_COS": "1.0", "LAMBDA_NORM": "0.1", "NUM_BLOCKS": "4"}
OWN_RANDOM = {"TARGETS": "all", "LEARNING_RATE": "0.0003", "ITEM_DROPOUT": "0.5", "NUM_TRAIN_EPOCHS": "20", "LAMBDA_NORM": "0.01"}
OWN_PRETRAINED = {"TARGETS": "all", "LEARNING_RATE": "0.002", "MAX_STEPS": "-1"}
OWN_SASREC = {"SASREC_NUM_EPOCHS": "100", "SASREC_LEARNING_RATE": "0.001", "SASREC_BATCH_SIZE": "256"}
LLAMA = "meta-llama/Llama-2-7b-hf"


@pytest.mark.parametrize(
    "dataset, base_model, expected",
    [
        ("cloth", "", TABLE_6 | {"BASE_MODEL": LLAMA, "LEARNING_RATE": "0.003", "MAX_STEPS": "1500", "LAMBDA_MS": "1.0"}),
        ("movie", "", TABLE_6 | {"BASE_MODEL": LLAMA, "LEARNING_RATE": "0.001", "MAX_STEPS": "-1", "LAMBDA_MS": "1.0"}),
        ("music", "", TABLE_6 | {"BASE_MODEL": LLAMA, "LEARNING_RATE": "0.002", "MAX_STEPS": "800", "LAMBDA_MS": "0.01"}),
        ("sport", "", TABLE_6 | {"BASE_MODEL": LLAMA, "LEARNING_RATE": "0.002", "MAX_STEPS": "2000", "LAMBDA_MS": "0.1"}),
        ("music", "another/model", TABLE_6 | {"BASE_MODEL": "another/model", "LEARNING_RATE": "0.002", "MAX_STEPS": "800"}),
        ("mine", "a/llama", OWN_PRETRAINED | {"BASE_MODEL": "a/llama", "BACKBONE": "pretrained"}),
        ("beauty", "a/llama", OWN_PRETRAINED),
        ("demo", "a/llama", OWN_PRETRAINED),
        ("mine", "", OWN_RANDOM | {"BASE_MODEL": "", "BACKBONE": "random"} | OWN_SASREC),
        ("mine", "made here", OWN_RANDOM | {"BASE_MODEL": "made here", "BACKBONE": "random"}),
        ("music", "made here", OWN_RANDOM | {"BACKBONE": "random"}),
        ("beauty", "", OWN_RANDOM | {"NUM_TRAIN_EPOCHS": "12", "SAVE_STEPS": "88"}),
        (
            "demo",
            "",
            OWN_RANDOM
            | {"LEARNING_RATE": "0.002", "ITEM_DROPOUT": "0.0", "NUM_TRAIN_EPOCHS": "6"}
            | {"SASREC_NUM_EPOCHS": "16", "SASREC_LEARNING_RATE": "0.003", "SASREC_BATCH_SIZE": "128"},
        ),
    ],
)
def test_hyper_parameters(dataset, base_model, expected, tmp_path, tiny_backbone):
    """By data set and kind of backbone; one that make_backbone wrote is random wherever it lies."""
    (tmp_path / "made here").symlink_to(tiny_backbone)
    assert values(tmp_path, expected, DATASET=dataset, BASE_MODEL=base_model) == expected


def values(tmp_path, names, **variables):
    code = f'source "{ROOT}/hyperparameters.sh"; for name; do printf "%s\\n" "${{!name}}"; done'
    outcome = shell(code, tmp_path, *names, **variables)
    assert outcome.returncode == 0, outcome.stderr
    return dict(zip(names, outcome.stdout.splitlines(), strict=True))


def test_a_variable_of_the_environment_overrides_and_reaches_the_flags(tmp_path):
    arrays = '"$NUM_LAYERS_TEACHER" "${STAGE_FLAGS[@]}" "${DISTILLATION_FLAGS[@]}"'
    code = f'source "{ROOT}/hyperparameters.sh"; printf "%s\\n" {arrays}'
    given = {"LEARNING_RATE": "7", "LAMBDA_MS": "8", "NUM_LAYERS_TEACHER": "6", "LR_SCHEDULER_TYPE": "a 'b'"}
    words = shell(code, tmp_path, DATASET="cloth", **given).stdout.splitlines()
    assert words[0] == "6"
    for name in ("learning_rate", "lambda_ms", "lr_scheduler_type"):
        assert words[words.index(f"--{name}") + 1] == given[name.upper()]
    assert words[words.index("--max_steps") + 1] == "1500"


# -- refusals -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script, arguments, message",
    [
        ("run_finetune.sh", [], "usage: [DATASET=NAME] bash run_finetune.sh OUTPUT_DIR [flags]"),
        ("run_distill.sh", ["runs/teacher"], "usage: [DATASET=NAME] bash run_distill.sh TEACHER OUTPUT_DIR [flags]"),
        ("run_pipeline.sh", ["demo", "--reviews"], "error: --reviews needs a value"),
        ("run_pipeline.sh", ["--lambda_ms", "1"], "error: NAME is missing before --lambda_ms"),
        ("run_pipeline.sh", ["mine"], "error: mine is no data set of the paper: give its reviews with --reviews FILE"),
        ("run_pipeline.sh", ["demo", "--lerning_rate", "1"], "error: unknown flag --lerning_rate: did you mean --learning_rate?"),
        (
            "run_pipeline.sh",
            ["demo", "--student.num_blocks", "3"],
            "student slmrec_4_8: --num_blocks 3 does not divide the teacher's",
        ),
        ("run_pipeline.sh", ["demo", "--llm.targets", "last", "--teacher.targets", "all"], "they must agree (--llm.targets)"),
    ],
)
def test_refusals_write_nothing(script, arguments, message, tmp_path):
    """Also not an environment: there is nothing but a plain Python here."""
    plain = plain_python(tmp_path / "bin")
    outcome = run(copy_of_scripts(tmp_path / "a copy") / script, *arguments, cwd=tmp_path, path=plain)
    assert outcome.returncode == 2
    assert message in outcome.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "runs").exists() and not (tmp_path / "a copy/.venv").exists()


def test_a_bad_value_of_the_environment_is_refused_too(tmp_path):
    outcome = run(ROOT / "run_pipeline.sh", "demo", cwd=tmp_path, LEARNING_RATE="nan")
    assert outcome.returncode == 2
    said = ["from the environment: LEARNING_RATE=nan", "error: teacher e4srec_8: --learning_rate nan: must be a finite number"]
    assert outcome.stderr.splitlines() == said


def test_directories_follow_the_layers(tmp_path):
    flags = ["--teacher.num_layers", "6", "--student.num_layers", "3", "--num_blocks", "3", "--dry_run"]
    outcome = run(ROOT / "run_pipeline.sh", "demo", *flags, cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    for part in (
        "--output_dir runs/demo/e4srec_6 --num_layers 6",
        "--output_dir runs/demo/e4srec_3 --num_layers 3",
        "--teacher runs/demo/e4srec_6 --output_dir runs/demo/slmrec_3_6",
        " e4srec_6 e4srec_3 slmrec_3_6\n",  # the table
    ):
        assert part in outcome.stdout
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("script", ["run_pipeline.sh", "run_finetune.sh", "run_distill.sh", "run_openp5.sh", "run_tests.sh"])
def test_help_comes_before_any_environment(script, tmp_path):
    copy, plain = copy_of_scripts(tmp_path / "a copy"), plain_python(tmp_path / "bin")
    (tmp_path / "bin/sed").symlink_to(shutil.which("sed"))
    outcome = run(copy / script, "-h", cwd=tmp_path, path=plain)
    assert outcome.returncode == 0 and f"bash {script}" in outcome.stdout and not outcome.stderr
    assert not (copy / ".venv").exists()


# -- environments ---------------------------------------------------------------------------------------------------------------


def plain_python(directory):
    """A PATH with a Python that has nothing installed, and the usual commands."""
    directory.mkdir()
    base = Path(sys._base_executable)
    (directory / "python3").write_text(f'#!/bin/sh\nexec "{base}" -S "$@"\n')
    (directory / "python3").chmod(0o755)
    for name in ("bash", "dirname", "grep", "cat", "env"):
        (directory / name).symlink_to(shutil.which(name))
    return str(directory)


def copy_of_scripts(directory):
    """The project's own code at another place, one with a blank in its name, without an environment."""
    directory.mkdir()
    for path in SCRIPTS:
        target = directory / path.relative_to(ROOT)
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    (directory / "slmrec").symlink_to(ROOT / "slmrec")
    return directory


def fake_python(path, version, pip=True, log=None):
    """A `python` of some version that records how it is called; it answers the questions that setup_env.sh asks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    answers = {
        "*version_info*": f"exit {0 if version >= (3, 11) else 1}",
        "--version": f'echo "Python {version[0]}.{version[1]}"',
        "*_base_executable*": "echo python3",
        '"-m pip --version"': f"exit {0 if pip else 1}",
        '"-m venv"*': 'mkdir -p "${@: -1}/bin"; cp "$0" "${@: -1}/bin/python"',
        '"-m pip install"*': ":",
        '"- "*': "cat > /dev/null; echo 'numpy==0.0.1 '",  # which pins do not hold?
    }
    lines = ["#!/bin/bash", f'echo "$0 $*" >> "{log}"' if log else ":"]
    lines += ['case "$*" in', *(f"{question}) {answer} ;;" for question, answer in answers.items()), "esac"]
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o755)


@pytest.mark.parametrize("venv, rebuilt", [(None, True), ({"pip": False}, True), ({"version": (3, 10)}, True), ({}, False)])
def test_a_venv_that_cannot_be_brought_up_to_date_is_made_anew(venv, rebuilt, tmp_path):
    copy, log = copy_of_scripts(tmp_path / "a copy"), tmp_path / "log"
    path = plain_python(tmp_path / "bin")
    (tmp_path / "bin/mkdir").symlink_to(shutil.which("mkdir"))
    (tmp_path / "bin/cp").symlink_to(shutil.which("cp"))
    (tmp_path / "bin/python3").unlink()
    fake_python(tmp_path / "bin/python3", (3, 12), log=log)
    if venv is not None:
        fake_python(copy / ".venv/bin/python", **{"version": (3, 12), "log": log} | venv)
    code = f'source "{copy}/scripts/setup_env.sh"; make_environment; echo "$SLMREC"'
    outcome = shell(code, tmp_path, path=path)
    assert (outcome.returncode, outcome.stdout) == (0, f"{copy}\n"), outcome.stderr
    called = log.read_text()
    assert (f"-m venv --clear {copy}/.venv" in called) == rebuilt
    assert f"{copy}/.venv/bin/python -m pip install --quiet --disable-pip-version-check numpy==0.0.1\n" in called


def test_a_real_venv_without_pip_is_made_anew(tmp_path):
    """The shared case venv_without_pip: what the scripts go on with has a pip, of the version that is asked for."""
    copy, path = copy_of_scripts(tmp_path / "a copy"), plain_python(tmp_path / "bin")
    (copy / "requirements.txt").write_text(f"pip=={ensurepip.version()}\n")
    subprocess.run([sys._base_executable, "-m", "venv", "--without-pip", copy / ".venv"], check=True)
    code = f'source "{copy}/scripts/setup_env.sh"; make_environment; python -m pip --version; command -v python'
    outcome = shell(code, tmp_path, path=path)
    assert outcome.returncode == 0, outcome.stderr
    version, python = outcome.stdout.splitlines()
    assert version.startswith(f"pip {ensurepip.version()} from {copy}/.venv") and python == f"{copy}/.venv/bin/python"


def test_an_old_python_is_refused_in_one_line(tmp_path):
    path = plain_python(tmp_path / "bin")
    (tmp_path / "bin/python3").unlink()
    fake_python(tmp_path / "bin/python3", (3, 10))
    outcome = run(copy_of_scripts(tmp_path / "copy") / "run_pipeline.sh", "-h", cwd=tmp_path, path=path)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert outcome.stderr == "error: Python 3.11 or newer is needed, and python3 is Python 3.10\n"


def test_an_environment_is_used_only_if_every_pin_holds(tmp_path):
    copy = copy_of_scripts(tmp_path / "a copy")
    extras = '[project.optional-dependencies]\nserve = ["no-such-package==1.0"]\n'
    (copy / "pyproject.toml").write_text(extras)
    code = f'source "{copy}/scripts/setup_env.sh"; slmrec_missing_pins "{sys.executable}" "$@"'
    for content, wanted, missing in (
        ((ROOT / "requirements.txt").read_text(), [], ""),
        ("numpy==0.0.1  # old\n\n", [], "numpy==0.0.1 "),
        ("", ["serve"], "no-such-package==1.0 "),
    ):
        (copy / "requirements.txt").write_text(content)
        assert shell(code, tmp_path, *wanted).stdout == missing, content


@pytest.mark.parametrize("words", [[], ["--dry"], ["out", "--dri"], ["out", "--dry", "more"]])
def test_gpu_check_refuses_what_it_does_not_know(words, tmp_path):
    command = ["bash", str(ROOT / "scripts/gpu_check.sh"), *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=20)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not (ROOT / "out").exists() and not (ROOT / "--dry").exists()


# -- shells ---------------------------------------------------------------------------------------------------------------------

# bash 3.2 (macOS) has none of these; bash before 4.4 takes an empty array for an unset variable under `set -u`
NEWER = {
    "associative arrays": r"(declare|local|typeset) -[a-z]*[An]",
    "mapfile": r"\b(mapfile|readarray|coproc)\b",
    "case conversion": r"\$\{\w+(\[[^]]*\])?(,|\^|@[A-Z])",
    "new redirections": r"\|&|&>>",
    "case fall-through": r";;?&",
    "test -v": r"\[\[? -v ",
    "a regular expression in place": r"=~ [^$]",
}
# arrays that always hold something
FILLED = {"PLAN", "FROM", "LLM", "MODELS", "SASREC_SETTINGS", "STAGE_FLAGS", "DISTILLATION_FLAGS", "OPENP5_FLAGS"}
FILLED |= {"PARTS", "SHAPE", "BACKBONE", "FOUR_BITS", "TEACHER_4BIT", "ITEMS"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_old_shells_understand_the_scripts(script):
    text = re.sub(r"(^|\s)#.*", r"\1", script.read_text(encoding="utf-8"))
    assert not [what for what, pattern in NEWER.items() if re.search(pattern, text)]
    unguarded = set(re.findall(r'"\$\{(\w+)\[@\]', re.sub(r'\$\{(\w+)\[@\]\+"\$\{\1\[@\]\}"\}', "", text)))
    assert unguarded <= FILLED
    assert not re.search(r"\$\((?:[^()]|\([^()]*\))*<<", text)  # 3.2 cannot parse a here-document inside $( )


@pytest.mark.parametrize("name", sorted(FILLED - {"PLAN"}))
def test_arrays_that_need_no_guard_are_never_empty(name):
    assigned = [
        found for path in SCRIPTS for found in re.findall(rf"\b{name}=\((.*?)\)", path.read_text(encoding="utf-8"), re.DOTALL)
    ]
    assert assigned and all(content.strip() for content in assigned)


# Read by every bash that is not interactive: before each command, the fault of bash before 4.4 that the scripts have to avoid
OLD_BASH = r"""
old_bash() {
    local rest="$BASH_COMMAND"
    while [[ $rest =~ (..)\$\{([A-Za-z_]+)\[@\]\}(.*) ]]; do
        rest="${BASH_REMATCH[3]}"
        [ "${BASH_REMATCH[1]}" = '+"' ] || eval "[ \${#${BASH_REMATCH[2]}[@]} != 0 ]" || {
            echo "${BASH_REMATCH[2]}[@]: unbound variable" >&2
            exit 97
        }
    done
}
set -T
trap old_bash DEBUG
"""


@pytest.fixture
def old_bash(tmp_path):
    """old_bash(script, *arguments): the script by a bash that ends at empty arrays, and a Python that runs no stage."""
    (tmp_path / "rules").write_text(OLD_BASH)
    (tmp_path / "bin").mkdir()
    asked = f'exec "{sys.executable}" "$@"'
    cases = [f'*slmrec.pipeline*|"-c "*) {asked} ;;', '"- "*) cat > /dev/null ;;', '*) echo "python $*" ;;']
    (tmp_path / "bin/python").write_text("\n".join(["#!/bin/sh", 'case "$*" in', *cases, "esac"]) + "\n")
    (tmp_path / "bin/python").chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    return lambda script, *arguments: run(script, *arguments, cwd=tmp_path, path=path, BASH_ENV=str(tmp_path / "rules"))


@pytest.mark.parametrize(
    ("code", "ends"),
    [('A=(); echo "${A[@]}"', True), ('A=(); echo ${A[@]+"${A[@]}"}', False), ('A=(x); echo "${A[@]}"', False)],
)
def test_an_empty_array_ends_an_old_bash(old_bash, tmp_path, code, ends):
    """That the tests below can fail."""
    (tmp_path / "code.sh").write_text(f"f() {{\n{code}\n}}\nf\n")
    assert old_bash(tmp_path / "code.sh").returncode == (97 if ends else 0)


@pytest.mark.parametrize(
    ("command", "last"),
    [
        ("run_pipeline.sh demo --dry_run", "reproduce.comparison"),
        ("run_pipeline.sh music --text_use off --base_model no/model --seed 3 --dry_run", "reproduce.comparison"),
        ("run_pipeline.sh mine --reviews reviews.csv --sasrec.dropout 0.1 --dry_run", "reproduce.comparison"),
        ("run_finetune.sh runs/teacher", "finetune.py --output_dir runs/teacher"),
        ("run_distill.sh runs/teacher runs/student", "distill.py --teacher runs/teacher"),
        ("run_distill.sh online runs/student --seed 1", "distill.py --online"),
        ("run_openp5.sh runs/openp5", "train_openp5.py --output_dir runs/openp5"),
        ("run_tables.sh main", "-m reproduce main"),
        ("run_tests.sh tests/no_such_test.py", "-m pytest tests/no_such_test.py"),
    ],
)
def test_an_old_bash_runs_the_scripts(old_bash, tmp_path, command, last):
    """The shared case shell_bash32: no array is empty where it is read."""
    (tmp_path / "reviews.csv").touch()
    script, *arguments = command.split()
    outcome = old_bash(ROOT / script, *arguments)
    assert outcome.returncode == 0, outcome.stderr
    assert last in outcome.stdout.splitlines()[-1]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(script):
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0


@pytest.mark.parametrize(
    ("dataset", "flags", "commands"),
    [
        (
            "demo",
            [],
            [
                "embed_titles.py --data runs/demo/data --output_dir runs/demo/text",
                "sasrec_text --num_epochs 16 --learning_rate 0.003 --batch_size 128 --text_use start",
            ],
        ),
        ("mine", [], ["runs/mine/text --min_share 0.5", "--text runs/mine/text --text_use auto"]),
        ("mine", ["--text_use", "sum"], ["--output_dir runs/mine/text\n", "--text runs/mine/text --text_use sum"]),
    ],
)
def test_titles_are_used_unless_the_papers_way_is_asked_for(dataset, flags, commands, tmp_path):
    (tmp_path / "reviews.json").touch()
    reviews = [] if dataset == "demo" else ["--reviews", "reviews.json"]
    said = run(ROOT / "run_pipeline.sh", dataset, *reviews, *flags, "--dry_run", cwd=tmp_path).stdout
    assert all(command in said for command in commands), said
    assert "--models sasrec sasrec_text e4srec_8" in said if dataset == "demo" else "sasrec_text" not in said
    papers_way = run(
        ROOT / "run_pipeline.sh", "mine", "--reviews", "reviews.json", "--text_use", "off", "--dry_run", cwd=tmp_path
    )
    assert papers_way.returncode == 0 and "runs/mine/text" not in papers_way.stdout
