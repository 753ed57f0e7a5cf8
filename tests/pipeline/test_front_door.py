"""What the shell scripts are told: which variables, which flags, and in which line a wrong command ends, with Python alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from slmrec.errors import InputError
from slmrec.pipeline import front_door

ROOT = Path(__file__).parents[2]
NAMES = "DATASET RUN_DIR REVIEWS DRY_RUN BASE_MODEL NUM_LAYERS_TEACHER NUM_LAYERS_STUDENT TEXT_USE OUTPUT_DIR TEACHER".split()


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("BASE_MODEL", "DATASET", "TEXT_USE", "ENCODER_FLAGS", "BACKBONE_FLAGS"):
        monkeypatch.delenv(name, raising=False)


def evaluated(capsys, *words):
    """The variables and the arrays that bash has after it has evaluated the answer, and what was said on stderr."""
    front_door.main(list(words))
    answer, said = capsys.readouterr()
    show = 'for name; do [ -z "${!name+x}" ] || printf "%s=%s\\n" "$name" "${!name}"; done'
    arrays = "".join(f'printf "{stage}"; printf "|%s" "${{{stage.upper()}_FLAGS[@]}}"; echo;' for stage in front_door.STAGES)
    command = ["bash", "-c", f"{answer}\n{show}\n{arrays}", "bash", *NAMES]
    out = subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]}).stdout
    variables = dict(line.split("=", 1) for line in out.splitlines() if "=" in line and "|" not in line)
    flags = dict(line.split("|", 1) for line in out.splitlines() if "|" in line)
    return variables, {stage: value for stage, value in flags.items() if value}, said


def test_no_argument_is_the_demo(capsys):
    variables, flags, said = evaluated(capsys, "run_pipeline.sh")
    assert variables == {"DATASET": "demo", "RUN_DIR": "runs/demo", "REVIEWS": "", "DRY_RUN": ""}
    assert not flags and not said


def test_variables_flags_and_what_is_said(capsys, tmp_path):
    (tmp_path / "my reviews.json").touch()
    command = ["mine", "--reviews", "my reviews.json", "--run_dir", "a b/it's", "--base_model", "x y", "--seed=3"]
    command += [
        "--teacher.num_layers",
        "6",
        "--student.num_layers",
        "3",
        "--num_blocks",
        "3",
        "--lora_target_modules",
        "q proj",
        "v",
    ]
    variables, flags, said = evaluated(capsys, "run_pipeline.sh", *command)
    assert variables == {
        "DATASET": "mine",
        "RUN_DIR": "a b/it's",
        "REVIEWS": "my reviews.json",
        "DRY_RUN": "",
        "BASE_MODEL": "x y",
        "NUM_LAYERS_TEACHER": "6",
        "NUM_LAYERS_STUDENT": "3",
    }
    shared = "--lora_target_modules|q proj|v"
    assert flags == {
        "text": "--seed|3",
        "sasrec": "--seed|3",
        "teacher": f"--seed|3|--num_layers|6|{shared}",
        "baseline": f"--seed|3|{shared}",
        "student": f"--seed|3|--num_layers|3|--num_blocks|3|{shared}",
    }
    assert said.splitlines()[0] == "text, sasrec  --seed 3" and "'q proj'" in said


def test_layers_that_decide_on_directories_are_exported(capsys):
    front_door.main(["run_pipeline.sh", "demo", "--teacher.num_layers", "2", "--text_use", "sum"])
    answer = capsys.readouterr().out
    assert "export NUM_LAYERS_TEACHER=2\n" in answer and "export TEXT_USE=sum\n" in answer


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ["--lambda_ms", "1"],
            "NAME is missing before --lambda_ms: bash run_pipeline.sh NAME --lambda_ms ... (demo is the embedded demo)",
        ),
        (["a/b"], "'a/b': the first word is a NAME for the run; --run_dir says where it goes"),
        ([""], "'': the first word is a NAME for the run; --run_dir says where it goes"),
        ([".."], "'..': the first word is a NAME for the run; --run_dir says where it goes"),
        (["mine", "--reviews", "nowhere.json"], "nowhere.json: no such file"),
        (["demo", "--meta", "nowhere.json"], "nowhere.json: no such file"),
        (["mine", "more"], "more: a flag such as --name is expected here"),
        (["mine", "--demo.seed", "1"], "--demo.seed: only the demo's reviews are generated (NAME demo, no --reviews)"),
        (["cloth", "--backbone.seed", "1"], "--backbone.seed: no backbone is made, as there is a base model"),
        (["demo", "--base_model", "x", "--num_heads", "2"], None),  # SASRec's, now that no backbone is made
        (
            ["music", "--encoder", "tfidf"],
            "--encoder: titles are only read with --text_use auto, start, sum, ...",
        ),
        (["mine", "--text_use", "off", "--encoder", "tfidf"], "--encoder: titles are not read with --text_use off"),
        (["demo", "--text_use", "sum", "--encoder", "tfidf"], None),
    ],
)
def test_what_a_pipeline_refuses(words, message, capsys):
    if message is None:
        front_door.main(["run_pipeline.sh", *words])
        return
    with pytest.raises(InputError) as refused:
        front_door.main(["run_pipeline.sh", *words])
    assert str(refused.value) == message and not capsys.readouterr().out


def trained_sasrec(run_dir, flags):
    (run_dir / "sasrec").mkdir(parents=True)
    command = f"python train_sr_trad.py --model sasrec --data 'a b/data' {flags}"
    (run_dir / "sasrec/manifest.json").write_text(json.dumps({"command": command}))


@pytest.mark.parametrize(
    "flags, asked, kept",
    [("", [], "off"), ("--text t --text_use auto", [], "auto"), ("--text t", [], "start"), ("", ["--text_use", "auto"], None)],
)
def test_a_sasrec_that_is_there_keeps_its_use_of_titles_unless_another_one_is_asked_for(flags, asked, kept, capsys, tmp_path):
    """run_tables.sh trains one without titles in the same directory."""
    (tmp_path / "reviews.json").touch()
    trained_sasrec(tmp_path / "runs/mine", flags)
    variables, _, said = evaluated(capsys, "run_pipeline.sh", "mine", "--reviews", "reviews.json", *asked)
    assert variables["TEXT_USE"] == (kept or "auto")
    line = f"runs/mine/sasrec keeps --text_use {kept}; give --text_use auto to train it anew\n"
    assert said == ("sasrec  --text_use auto\n" if asked else "" if kept == "auto" else line)


def test_variables_that_nothing_reads_any_more_are_not_ignored(monkeypatch):
    monkeypatch.setenv("ENCODER_FLAGS", "--num_epochs 3")
    with pytest.raises(InputError, match="ENCODER_FLAGS is set, which nothing reads any more; .*--sasrec.num_epochs"):
        front_door.main(["run_pipeline.sh", "demo"])


def test_what_the_environment_overrides_is_said(monkeypatch, capsys):
    monkeypatch.setenv("LEARNING_RATE", "0.1")
    monkeypatch.setenv("UNRELATED", "1")
    front_door.main(["run_pipeline.sh", "demo", "--lambda_ms", "1"])
    assert capsys.readouterr().err == "student  --lambda_ms 1\nfrom the environment: LEARNING_RATE=0.1\n"
    front_door.main(["run_finetune.sh", "out"])
    assert capsys.readouterr().err == "from the environment: LEARNING_RATE=0.1\n"


def test_data_that_are_there_stay_unless_reviews_are_given(capsys, tmp_path):
    (tmp_path / "runs/mine/data").mkdir(parents=True)
    (tmp_path / "runs/mine/data/manifest.json").touch()
    assert evaluated(capsys, "run_pipeline.sh", "mine", "--lambda_ms", "1")[1] == {"student": "--lambda_ms|1"}
    with pytest.raises(InputError, match="^--k_core: runs/mine/data is there and is used as it is; a change .* needs --reviews"):
        front_door.main(["run_pipeline.sh", "mine", "--k_core", "3"])
    (tmp_path / "r").touch()
    assert evaluated(capsys, "run_pipeline.sh", "mine", "--k_core", "3", "--reviews", "r")[1] == {"data": "--k_core|3"}


@pytest.mark.parametrize(
    "words, expected",
    [
        (["run_finetune.sh", "out put", "--num_layers", "4"], {"OUTPUT_DIR": "out put"}),
        (["run_finetune.sh", "out", "--base_model=b", "--data", "d"], {"OUTPUT_DIR": "out", "BASE_MODEL": "b"}),
        (["run_openp5.sh", "out", "--base_model", "b", "--indexing", "random"], {"OUTPUT_DIR": "out", "BASE_MODEL": "b"}),
        (["run_distill.sh", "t", "out", "--lambda_ms", "0"], {"TEACHER": "t", "OUTPUT_DIR": "out"}),
        (["run_distill.sh", "online", "out", "--teacher_layers", "8"], {"TEACHER": "online", "OUTPUT_DIR": "out"}),
    ],
)
def test_single_stages(words, expected, capsys):
    front_door.main(words)
    show = 'for name; do [ -z "${!name+x}" ] || printf "%s=%s\\n" "$name" "${!name}"; done'
    command = ["bash", "-c", f"{capsys.readouterr().out}\n{show}", "bash", *NAMES]
    out = subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]}).stdout
    assert dict(line.split("=", 1) for line in out.splitlines()) == expected


FINETUNE = "usage: [DATASET=NAME] bash run_finetune.sh OUTPUT_DIR [flags] (bash run_finetune.sh -h lists them)"
DISTILL = "usage: [DATASET=NAME] bash run_distill.sh TEACHER OUTPUT_DIR [flags] (bash run_distill.sh -h lists them)"


@pytest.mark.parametrize(
    "words, message",
    [
        (["run_finetune.sh"], FINETUNE),
        (["run_finetune.sh", "--num_layers", "4"], FINETUNE),
        (["run_finetune.sh", ""], FINETUNE),
        (["run_distill.sh", "teacher"], DISTILL),
        (["run_distill.sh", "teacher", "--seed", "1"], DISTILL),
        (["run_finetune.sh", "out", "--num_layrs", "4"], "unknown flag --num_layrs: did you mean --num_layers?"),
        (["run_openp5.sh"], "usage: [DATASET=NAME] bash run_openp5.sh OUTPUT_DIR [flags] (bash run_openp5.sh -h lists them)"),
        (["run_openp5.sh", "out", "--clusters", "5"], "--clusters and --cluster_size are only for --indexing collaborative"),
        (["run_openp5.sh", "out", "--sample_share", "0"], "--sample_share 0.0: must be above 0 and at most 1"),
        (["run_finetune.sh", "out", "--zzz"], "unknown flag --zzz: bash run_finetune.sh -h lists all there are"),
        (["run_finetune.sh", "out", "--learning_rate", "0"], "--learning_rate 0.0: must be above 0"),
        (
            ["run_distill.sh", "t", "out", "--online"],
            "give either --teacher (a trained one) or --online (trained along with the student)",
        ),
        (
            ["run_distill.sh", "t", "out", "--teacher_layers", "8"],
            "--teacher_layers is only for --online; a trained teacher has its own",
        ),
    ],
)
def test_what_single_stages_refuse(words, message):
    with pytest.raises(InputError) as refused:
        front_door.main(words)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    "words, shown",
    [
        (
            ["run_pipeline.sh", "mine", "-h"],
            [
                "bash run_pipeline.sh NAME --reviews FILE",
                "Without a prefix, seed, device,",
                "--sasrec.dropout FLOAT",
                "--data.protocol {paper,released}",
                "--llm.precision {auto,fp32,bf16}",
                "--student.lambda_ms FLOAT",
            ],
        ),
        (
            ["run_finetune.sh", "-h"],
            ["usage: [DATASET=NAME] bash run_finetune.sh OUTPUT_DIR [flags]", "(default: runs/DATASET/data)"],
        ),
        (["run_distill.sh", "-h"], ["usage: [DATASET=NAME] bash run_distill.sh TEACHER OUTPUT_DIR [flags]", "--lambda_cos"]),
    ],
)
def test_help_comes_with_python_alone(words, shown):
    """-I -S: neither installed packages nor anything of the environment."""
    start = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from slmrec.pipeline import front_door; front_door.main(sys.argv[1:])"
    )
    command = [sys.executable, "-I", "-S", "-c", start, *words]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    text = subprocess.run(["bash", "-c", f"{answer}\necho went-on"], capture_output=True, text=True, check=True).stdout
    text = " ".join(text.split())
    assert [part for part in shown if part not in text] == []
    assert "went-on" not in text and "None" not in text


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"command": 5}', '{"command": null}', '{"command": "\'"}', "[" * 100_000, "\\x"]
)
def test_a_damaged_manifest_is_left_to_the_stages(tmp_path, content):
    (tmp_path / "sasrec").mkdir()
    (tmp_path / "sasrec" / "manifest.json").write_text(content)
    assert front_door.text_use_there(tmp_path) in ("", "off")
