"""Which commands run_tables.sh would run, asked with --dry_run in this process."""

from __future__ import annotations

import os
import re

import pytest

from reproduce import __main__ as command_line
from reproduce.commands import ROOT
from reproduce.experiments import ANALYSES, EXPERIMENTS, Experiment, e4srec, models_of, slmrec
from reproduce.hyperparameters import shell_values
from slmrec.artifacts import Stage, write_json
from slmrec.command_line import grouped
from slmrec.errors import InputError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty directory to stand in, with some reviews."""
    monkeypatch.chdir(tmp_path)
    for variable in ("TEACHER_STATES", "LEARNING_RATE", "BASE_MODEL", "TEXT_USE"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "reviews.csv").write_text("user,item,time\n")


@pytest.fixture
def commands(capsys):
    """commands(experiment, dataset, *flags): what --dry_run prints, without the paths to the scripts."""

    def ask(experiment, dataset="mine", *flags):
        reviews = () if dataset in ("demo", "music") else ("--reviews", "reviews.csv")
        assert command_line.run(experiment, dataset, [*reviews, *flags, "--dry_run"]) == 0
        lines = capsys.readouterr().out.splitlines()
        return [
            " ".join(word.rpartition("/")[2] if word.endswith((".py", ".sh")) else word for word in line.split())
            for line in lines
        ]

    return ask


def starting(lines, *words):
    """The lines that hold all these words."""
    return [line for line in lines if all(word in line for word in words)]


def test_the_whole_experiment_in_order(commands):
    seen = [line for line in commands("layers") if "evaluate.py" not in line]
    assert seen == [
        "python -m slmrec.data --input reviews.csv --output_dir runs/mine/data",
        "python train_sr_trad.py --model sasrec --data runs/mine/data --output_dir runs/mine/sasrec --seed 0 --num_epochs 100 "
        "--learning_rate 0.001 --batch_size 256",
        "python extract_emb.py --encoder runs/mine/sasrec --output_dir runs/mine/embeddings",
        "python -m slmrec.llm.make_backbone --output_dir runs/mine/backbone --seed 0",
        "DATASET=mine bash run_finetune.sh runs/mine/e4srec_8 --data runs/mine/data --embeddings runs/mine/embeddings "
        "--base_model runs/mine/backbone --num_layers 8 --seed 0",
        "python -m reproduce.analysis.layers --model runs/mine/e4srec_8 --split test --output_dir runs/mine/e4srec_8/layers-test",
    ]


@pytest.mark.parametrize(
    "experiment", [name for name, entry in EXPERIMENTS.items() if entry.models and entry.dataset and not entry.pretrained]
)
def test_every_model_of_the_table_is_made_once_and_evaluated_after_its_teacher(experiment, commands):
    lines = commands(experiment)
    assert len(lines) == len(set(lines))
    for model in models_of(experiment, command_line.Backbone()):
        output = f"runs/mine/{model.name}"
        if model.optional and EXPERIMENTS[experiment].kind in ANALYSES:  # looked into where another experiment made it
            assert not starting(lines, f"{output} ")
            continue
        (evaluation,) = starting(lines, f"evaluate.py --model {output} ")
        made_by = {"encoder": f"--output_dir {output} ", "finetune": f"run_finetune.sh {output} ", "distill": f" {output} --data"}
        made_by["openp5"] = f"run_openp5.sh {output} "
        if model.stage:
            (training,) = starting(lines, made_by[model.stage])
            flags = re.sub(r"\$\w+", r"\\S+", model.flags)  # variables of hyperparameters.sh
            assert lines.index(training) < lines.index(evaluation) and re.search(flags, training) and "$" not in training
        if model.teacher not in ("", "online"):
            assert f"run_distill.sh runs/mine/{model.teacher} {output} " in training
            (teacher,) = starting(lines, f"run_finetune.sh runs/mine/{model.teacher} ")
            assert lines.index(teacher) < lines.index(training)


def test_seeds_have_their_own_sasrec_and_backbone(commands):
    lines = commands("depth-train", "mine", "--seeds", "2")
    assert starting(lines, "--model sasrec", "--output_dir runs/mine/seed_1/sasrec --seed 1")
    assert starting(lines, "make_backbone --output_dir runs/mine/seed_1/backbone --seed 1")
    (line,) = starting(lines, "run_finetune.sh runs/mine/seed_1/e4srec_2")
    assert "--data runs/mine/data --embeddings runs/mine/seed_1/embeddings --base_model runs/mine/seed_1/backbone" in line
    assert len(starting(lines, "slmrec.data ")) == 1 and not starting(lines, "seed_2")


@pytest.mark.parametrize("dataset", ["mine", "scientific", "beauty", "music"])
def test_random_weights_of_a_base_models_shape_are_made_once_a_seed(commands, dataset):
    """The control for pretraining: all else, the adapters' settings too, is the pretrained model's."""
    given = ("--base_model", "smollm2-135m", "--seeds", "2", "--models_dir", "elsewhere")
    lines, own = commands("pretrained", dataset, *given), f"runs/{dataset}-smollm2-135m/seed_1"
    (made,) = starting(lines, f"make_backbone --output_dir {own}/backbone_random ")
    assert "--like smollm2-135m" in made and "--num_layers 8" in made and "--models_dir elsewhere" in made
    (lora,) = starting(lines, f"run_finetune.sh {own}/e4srec_4_random_lora ", f"--base_model {own}/backbone_random")
    assert lines.index(made) < lines.index(lora)
    named = ["TARGETS", "LEARNING_RATE", "ITEM_DROPOUT", "WARMUP_STEPS", "MAX_STEPS", "NUM_TRAIN_EPOCHS", "SAVE_STEPS"]
    values = shell_values(dataset, named, ROOT, os.environ | {"BASE_MODEL": "x"})
    flags = {name.upper(): words[-1] for name, words in grouped(["--data", *lora.partition(" --data ")[2].split()]) if words}
    assert values.items() <= flags.items()
    assert starting(lines, f"run_finetune.sh {own}/e4srec_8 ", "--base_model smollm2-135m ")
    with pytest.raises(InputError, match="give --base_model"):
        commands("pretrained")


def test_a_named_base_model_has_a_directory_of_its_own_and_as_many_depths_as_it_has(commands):
    """Data and conventional models are shared; nothing is fetched to say so."""
    lines = commands("depth-train", "mine", "--base_model", "smollm2-135m")
    tuned = starting(lines, "run_finetune.sh runs/mine-smollm2-135m/e4srec_", "--base_model smollm2-135m")
    assert [line.split("--num_layers ")[1].split()[0] for line in tuned] == ["1", "2", "4", "8", "16", "24", "30"]
    assert starting(lines, "--output_dir runs/mine/sasrec") and not starting(lines, "make_backbone")
    lines = commands("teacher-size", "mine", "--base_model", "smollm2-135m")
    assert (
        "--num_blocks 2"
        in starting(lines, "run_distill.sh runs/mine-smollm2-135m/e4srec_30 runs/mine-smollm2-135m/slmrec_4_30")[0]
    )
    assert starting(lines, "run_distill.sh runs/mine-smollm2-135m/e4srec_16") and not starting(lines, "_w64")


def test_backbones_do_not_mix_in_a_directory(commands, tmp_path):
    with Stage("backbone", tmp_path / "runs" / "mine" / "backbone", {}, {}):
        pass
    with pytest.raises(InputError, match="runs/mine: holds runs on a random backbone"):
        commands("main", "mine", "--base_model", "smollm2-135m", "--run_dir", "runs/mine")


def test_a_deeper_random_backbone_has_more_depths(commands):
    lines = commands("depth-train", "mine", "--backbone.num_layers", "12")
    assert starting(lines, "e4srec_12", "--num_layers 12") and starting(lines, "make_backbone", "--num_layers 12")


def test_the_papers_data_and_llama(commands, monkeypatch):
    monkeypatch.setattr("reproduce.commands.base_model_layers", lambda name, shares: {"meta-llama/Llama-2-7b-hf": 32}[name])
    lines = commands("main", "music")
    assert lines[0] == "bash download.sh music" and "--meta" in lines[1] and "CDs_and_Vinyl_5.json.gz" in lines[1]
    (line,) = starting(lines, "DATASET=music bash run_finetune.sh runs/music/e4srec_32")
    assert "--base_model meta-llama/Llama-2-7b-hf" in line


def test_flags_go_where_they_belong(commands):
    lines = commands(
        "ablation", "mine", "--learning_rate", "0.01", "--lambda_ms", "0.5", "--sasrec.dropout", "0.2", "--device", "cpu"
    )
    assert "--learning_rate 0.01" in starting(lines, "run_finetune.sh")[0] and "--device cpu" in starting(lines, "evaluate.py")[0]
    assert "--dropout 0.2" in starting(lines, "--model sasrec")[0]
    cos, full = starting(lines, "slmrec_cos ")[0], starting(lines, "run_distill.sh", "slmrec_4_8")[0]
    assert "--lambda_ms 0.5" in full and cos.index("--lambda_ms 0.5") < cos.index(
        "--lambda_ms 0", cos.index("0.5")
    )  # the last counts


def test_flags_of_conventional_models(commands):
    """Without a prefix to each that has it, with its name to one."""
    lines = commands("encoders", "mine", "--num_epochs", "3", "--contrast_temperature", "0.2", "--hgn.dropout", "0.4")
    assert "--num_epochs 3" in starting(lines, "--model caser")[0] and "--num_epochs" not in starting(lines, "--model markov")[0]
    assert [line.split()[3] for line in starting(lines, "--contrast_temperature 0.2")] == ["duorec"]
    assert [line.split()[3] for line in starting(lines, "--dropout 0.4")] == ["hgn"]
    assert not starting(lines, "run_finetune.sh")


def test_what_the_environment_overrides_can_be_pasted(commands, monkeypatch):
    monkeypatch.setenv("LEARNING_RATE", "0.5")
    assert starting(commands("layers"), "DATASET=mine LEARNING_RATE=0.5 bash run_finetune.sh runs/mine/e4srec_8")


def test_a_teachers_states_are_kept_per_layers_compared(commands, monkeypatch):
    monkeypatch.setenv("TEACHER_STATES", "1")
    lines = commands("blocks")
    assert "--teacher_cache runs/mine/teacher_states/e4srec_8_1" in starting(lines, "slmrec_b1", "distill")[0]
    assert "--teacher_cache runs/mine/teacher_states/e4srec_8_4" in starting(lines, "slmrec_4_8", "distill")[0]
    lines = commands("kd-kinds") + commands("online")
    assert not starting(lines, "slmrec_attention", "--teacher_cache") and not starting(
        lines, "run_distill.sh online", "--teacher_cache"
    )


def test_titles_come_before_what_reads_them(commands):
    lines = commands("text")
    places = [
        lines.index(starting(lines, words)[0]) for words in ("embed_titles.py", "sasrec_text", "embeddings_text", "e4srec_8_text")
    ]
    assert places == sorted(places) and "--guide runs/mine/sasrec_text" in starting(lines, "run_finetune.sh")[0]
    assert "--encoder minilm" in starting(lines, "--output_dir runs/mine/text_minilm")[0]
    assert not starting(commands("text", "demo"), "minilm")  # which would be fetched


def test_a_sasrec_that_the_pipeline_trained_from_titles_is_used_as_it_is(commands, tmp_path):
    """Its titles stage included, which leaves data without titles alone."""
    (tmp_path / "runs/mine/sasrec").mkdir(parents=True)
    write_json(tmp_path / "runs/mine/sasrec/manifest.json", {"command": "python train_sr_trad.py --text t --text_use auto"})
    (titles,) = starting(commands("layers"), "embed_titles.py")
    assert titles.endswith("--output_dir runs/mine/text --min_share 0.5")
    assert starting(commands("layers"), "--model sasrec", "--text runs/mine/text --text_use auto")
    assert not starting(commands("layers", "mine", "--text_use", "off"), "runs/mine/text")


def test_weights_of_the_other_kinds_of_distillation_are_variables(commands, monkeypatch):
    assert starting(commands("kd-kinds"), "slmrec_contrastive --data", "--lambda_contrastive 0.1")
    monkeypatch.setenv("KD_LAMBDA_CONTRASTIVE", "0.7")
    assert starting(commands("kd-kinds"), "slmrec_contrastive --data", "--lambda_contrastive 0.7")


def test_the_benchmark_runs_once_unless_asked_for(commands, tmp_path):
    assert starting(commands("efficiency", "demo", "--batch_size", "8"), "reproduce.efficiency", "--batch_size 8")
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    write_json(tmp_path / "runs" / "demo" / "efficiency.json", {})
    assert not starting(commands("efficiency", "demo"), "reproduce.efficiency")


def test_a_new_experiment_is_one_entry(commands, monkeypatch):
    models = [e4srec(8), slmrec("slmrec_t1", "temperature 1", "--temperature 1 --lambda_logits 1")]
    monkeypatch.setitem(EXPERIMENTS, "temperature", Experiment("Temperatures", "", "one student at a temperature", models=models))
    (line,) = starting(commands("temperature"), "run_distill.sh")
    assert "runs/mine/e4srec_8 runs/mine/slmrec_t1" in line and line.endswith("--temperature 1 --lambda_logits 1")


@pytest.mark.parametrize(
    "argv, message",
    [
        (["mane", "demo"], "mane: no such experiment; did you mean main?"),
        (["main"], "bash run_tables.sh main needs a DATASET"),
        (["main", "mine"], "mine is no data set of the paper: give its reviews with --reviews FILE"),
        (["main", "mine", "--reviews", "none.csv"], "none.csv: no such file"),
        (["main", "demo", "--seeds", "0"], "--seeds 0: must be at least 1"),
        (["main", "demo", "--seeds"], "--seeds needs a value"),
        (["main", "demo", "--seed", "1"], "--seed: a table has seeds 0, 1, 2"),
        (["main", "demo", "--teacher.num_layers", "2"], "--teacher.num_layers"),
        (["layers", "demo", "--learning_rat", "1"], "did you mean --learning_rate"),
        (["layers", "demo", "--learning_rate", "nan"], "--learning_rate nan"),
        (["stats", "demo", "--learning_rate", "1"], "--learning_rate: stats trains no E-LLMRec"),
        (["main", "demo", "--text.seed", "1"], "--text.seed: titles are only read with --text_use auto, start, sum"),
        (["blocks", "demo", "--num_blocks", "2"], "--num_blocks: blocks sets it itself"),
        (["theory", "demo"], "bash run_tables.sh theory takes nothing more"),
        (["--render", "nowhere"], "nowhere: no such directory"),
    ],
)
def test_wrong_words_are_told_before_anything_runs(argv, message, tmp_path):
    with pytest.raises(InputError, match=message):
        command_line.main([*argv, *([] if "--render" in argv else ["--dry_run"])] if argv[0] not in ("theory",) else argv)
    assert not (tmp_path / "runs").exists()


def test_help_lists_every_experiment(capsys):
    command_line.main(["-h"])
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in EXPERIMENTS) and "--base_model" in text and "--dry_run" in text
