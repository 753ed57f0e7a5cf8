"""Summaries of runs that are written here by hand: five users, two seeds, and what is missing."""

import json

import numpy as np
import pytest

from reproduce.summarise import Runs, summarise, write_summaries
from reproduce.summary import check_summary
from slmrec.artifacts import Stage, stage_input, write_json
from slmrec.errors import InputError
from slmrec.evaluation.metrics import summarise as metrics

RANKS = {"sasrec": [1, 2, 4, 5, 10], "e4srec_8": [1, 1, 2, 5, 10], "e4srec_4": [1, 2, 2, 10, 10], "slmrec_4_8": [1, 1, 4, 5, 10]}


def write_data(directory):
    sequences = [[1, 2, 3], [1, 1, 1, 2, 1], [1, 1, 1, 4, 3], [1] * 11 + [2], [3, 4, 2, 2]]
    with Stage("data", directory, {}, {}) as stage:
        offsets = np.cumsum([0] + [len(sequence) for sequence in sequences])
        np.savez(stage.path / "sequences.npz", items=np.concatenate(sequences).astype(np.int32), offsets=offsets)
        stats = {
            "users": 5,
            "items": 4,
            "interactions": 29,
            "raw_rows": 29,
            "density": 1.45,
            "mean_length": 5.8,
            "synthetic": True,
        }
        write_json(stage.path / "stats.json", stats | {"dropped": {}, "rules": {}})
    return directory


def write_model(directory, data, ranks, shift=0, backbone="random"):
    """A trained and evaluated model; every rank of the full ranking is twice that among candidates."""
    layers = int(directory.name.split("_")[1]) if "_" in directory.name else None
    kind = {"s": "distill", "e": "finetune"}[directory.name[0]] if layers else "encoder"
    inputs = {"data": stage_input(data)}
    if layers:
        inputs |= {"base_model": {"base_model": backbone, "digest": backbone}}
    with Stage(kind, directory, {"num_layers": layers, "seed": shift}, inputs, seed=shift) as stage:
        stage.metrics = {"parameters": 100, "train_seconds": 2.0, "history": [point(kind)]}
        if kind == "encoder":
            stage.metrics["history"][0]["train_seconds"] = 2.0
            stage.metrics |= {"best_epoch": 3, "peak_memory_mib": 512.0}
            del stage.metrics["train_seconds"]
    evaluate(directory, data, np.array(ranks) + shift)
    return directory


def evaluate(directory, data, ranks):
    with Stage("evaluate", directory / "evaluation-test", {}, {"data": stage_input(data)}) as stage:
        np.savez(stage.path / "ranks.npz", users=np.arange(5), sampled=ranks, full=2 * ranks)
        stage.metrics = {"test": {"sampled": metrics(ranks) | {"candidates": 999}, "full": metrics(2 * ranks) | {"items": 4}}}


def point(kind):
    if kind == "encoder":
        return {"epoch": 3, "loss": 5.0, "valid_MRR": 0.25}
    return {"step": 20, "valid": {"MRR": 0.5, "HR@1": 0.1}, "train": {"loss": 3.0, "loss_ce": 2.0, "loss_cos": 1.0}}


@pytest.fixture
def runs(tmp_path):
    """Seed 0 has all four models of `main`, seed 1 lacks the student."""
    data = write_data(tmp_path / "mine" / "data")
    for name, ranks in RANKS.items():
        write_model(tmp_path / "mine" / name, data, ranks)
        if name != "slmrec_4_8":
            write_model(tmp_path / "mine" / "seed_1" / name, data, ranks, shift=1)
    return Runs.below(tmp_path / "mine")


def test_main(runs):
    found = summarise(runs)["main"]
    assert (found["experiment"], found["dataset"], found["synthetic"], found["seeds"]) == ("main", "mine", True, [0, 1])
    models = {model["name"]: model for model in found["models"]}
    assert list(models) == ["sasrec", "e4srec_8", "e4srec_4", "slmrec_4_8"]
    assert [run["seed"] for run in models["e4srec_8"]["runs"]] == [0, 1]
    first, second = models["e4srec_8"]["runs"]
    assert first["metrics"]["sampled"]["MRR"] == pytest.approx((1 + 1 + 1 / 2 + 1 / 5 + 1 / 10) / 5)
    assert second["metrics"]["sampled"]["MRR"] == pytest.approx((1 / 2 + 1 / 2 + 1 / 3 + 1 / 6 + 1 / 11) / 5)
    assert first["metrics"]["full"]["MRR"] == pytest.approx(first["metrics"]["sampled"]["MRR"] / 2)
    assert first["history"] == [{"step": 20, "valid_MRR": 0.5, "train": {"loss": 3.0, "ce": 2.0, "cos": 1.0}}]
    assert models["sasrec"]["runs"][0]["history"] == [{"step": 3, "valid_MRR": 0.25, "train": {"loss": 5.0}}]
    assert models["sasrec"]["runs"][0]["train_seconds"] == 2.0
    assert first["provenance"]["digest"] != second["provenance"]["digest"] and len(first["provenance"]["digest"]) == 64


def test_conventional_models_alone(runs):
    """The encoders' experiment has a row for each of them, costs where they ran, and comparisons where both models did."""
    markov = runs.directory / "markov"
    with Stage("encoder", markov, {}, {"data": stage_input(runs.directory / "data")}) as stage:
        history = [{"epoch": 1, "valid_MRR": 0.125, "train_seconds": 0.5, "valid_seconds": 1.0}]  # nothing was trained: no loss
        stage.metrics = {"parameters": 0, "best_epoch": 1, "peak_memory_mib": 300.0, "history": history}
    evaluate(markov, runs.directory / "data", np.array([2, 2, 2, 2, 2]))
    found = summarise(runs)["encoders"]
    models = {model["name"]: model for model in found["models"]}
    assert len(models) == 11 and models["caser"]["runs"] == [] and len(models["caser"]["missing"]) == 2
    assert models["caser"]["missing"][1]["command"] == "bash run_tables.sh encoders mine --seeds 2"
    assert models["sasrec"]["runs"][0]["cost"] == {
        "epochs": 1,
        "best_epoch": 3,
        "seconds_per_epoch": 2.0,
        "peak_memory_mib": 512.0,
    }
    assert models["markov"]["runs"][0]["history"] == [{"step": 1, "valid_MRR": 0.125, "train": {}}]
    assert {(entry["model"], entry["against"]) for entry in found["comparisons"]} == {("sasrec", "markov")}


def test_what_is_missing_comes_with_its_command(runs):
    found = summarise(runs)
    student = found["main"]["models"][-1]
    assert student["missing"] == [{"seed": 1, "command": "bash run_tables.sh main mine --seeds 2"}]
    shallow = found["depth-train"]["models"][0]
    assert shallow["name"] == "e4srec_1" and not shallow["runs"]
    command = "bash run_tables.sh depth-train mine --seeds 2"  # one makes both
    assert shallow["missing"] == [{"seed": seed, "command": command} for seed in (0, 1)]
    assert [entry["model"] for entry in found["cold"]["missing"]] == ["SLMRec_4<-8"]


def test_comparisons_are_over_the_seeds_that_both_have(runs):
    found = {(entry["model"], entry["against"], entry["ranking"]): entry for entry in summarise(runs)["main"]["comparisons"]}
    student = found["slmrec_4_8", "e4srec_4", "sampled"]
    assert (student["seeds"], student["users"]) == (1, 5)
    assert (student["better"], student["equal"], student["worse"]) == (2, 2, 1)  # ranks 1 1 4 5 10 against 1 2 2 10 10
    assert student["mean_difference"] == pytest.approx((1 / 2 - 1 / 4 + 1 / 10) / 5)
    assert found["e4srec_8", "e4srec_4", "full"]["seeds"] == 2


def test_an_experiment_without_any_run_has_no_summary(runs, tmp_path):
    assert {"main", "depth-train", "cold", "stats"} <= summarise(runs).keys()
    assert not {"layers", "depth-infer", "efficiency", "regimes"} & summarise(runs).keys()


def test_a_jointly_trained_teacher_is_described_by_its_students_run(runs, tmp_path):
    data = tmp_path / "mine" / "data"
    online = tmp_path / "mine" / "slmrec_online"
    with Stage("distill", online, {"num_layers": 4}, {"data": stage_input(data)}) as stage:
        (stage.path / "teacher").mkdir()
        (stage.path / "teacher" / "recommender.json").write_text("{}")
        along = {"teacher": {"parameters": 300, "trained_parameters": 300}}
        stage.metrics = {"parameters": 100, "train_seconds": 2.0, "history": [point("distill")], "trained_along": along}
    evaluate(online, data, np.array([1, 1, 1, 1, 1]))
    evaluate(online / "teacher", data, np.array([1, 1, 1, 1, 2]))
    models = {model["name"]: model for model in summarise(Runs.below(tmp_path / "mine"))["online"]["models"]}
    student, teacher = models["slmrec_online"]["runs"][0], models["slmrec_online/teacher"]["runs"][0]
    assert (student["parameters"], teacher["parameters"]) == (100, 300)
    assert student["provenance"]["digest"] == teacher["provenance"]["digest"]
    assert teacher["metrics"]["sampled"]["MRR"] == pytest.approx(0.9)


def test_analyses_and_the_benchmark(runs, tmp_path):
    for model, influence in (("e4srec_8", 0.5), ("e4srec_4", 0.3)):
        with Stage("layers", tmp_path / "mine" / model / "layers-test", {}, {}) as stage:
            stage.metrics = {"block_influence": [influence], "cka": [[1.0, None], [None, 1.0]], "users": 5}
    write_json(tmp_path / "mine" / "efficiency.json", {"forward_speedup": 2.0})
    found = summarise(Runs.below(tmp_path / "mine"))
    looked_into = [(run["seed"], run["model"], run["block_influence"]) for run in found["layers"]["runs"]]
    assert looked_into == [(0, "e4srec_4", [0.3]), (0, "e4srec_8", [0.5])]
    assert found["layers"]["missing"] == [{"seed": 1, "command": "bash run_tables.sh layers mine --seeds 2"}]
    assert found["efficiency"]["benchmark"] == {"forward_speedup": 2.0}


def test_the_command_writes_one_file_per_experiment(runs, tmp_path):
    write_summaries(tmp_path)
    written = {path.stem for path in (tmp_path / "tables" / "mine").glob("*.json")}
    assert written == summarise(runs).keys()
    assert json.loads((tmp_path / "tables" / "mine" / "stats.json").read_text())["stats"]["users"] == 5


def test_every_summary_is_one_that_can_be_read(runs):
    for name, summary in summarise(runs).items():
        check_summary(json.loads(json.dumps(summary)), name)


def test_runs_with_a_base_model_of_their_own_share_data_and_conventional_models(runs, tmp_path):
    """They lie beside those of the data set; what was read there stands in the manifests."""
    own, shared = tmp_path / "mine-smol", tmp_path / "mine"
    with Stage("embeddings", shared / "embeddings", {}, {}):
        pass
    inputs = {"data": stage_input(shared / "data"), "embeddings": stage_input(shared / "embeddings")}
    inputs["base_model"] = {"base_model": "smol", "digest": "smol"}
    with Stage("finetune", own / "e4srec_8", {"num_layers": 8}, inputs) as stage:
        stage.metrics = {"parameters": 100, "train_seconds": 2.0, "history": [point("finetune")]}
    evaluate(own / "e4srec_8", shared / "data", np.array([1, 1, 1, 1, 1]))
    found = summarise(Runs.below(own))["main"]
    assert (found["dataset"], found["data"], found["base_model"]) == ("mine-smol", "mine", "smol")
    models = {model["name"]: model for model in found["models"]}
    assert len(models["sasrec"]["runs"]) == len(models["e4srec_8"]["runs"]) == 1 and not models["e4srec_4"]["runs"]
    assert models["e4srec_4"]["missing"] == [{"seed": 0, "command": "bash run_tables.sh main mine --base_model smol"}]
    assert ("e4srec_8", "sasrec") in {(entry["model"], entry["against"]) for entry in found["comparisons"]}
    assert write_summaries(tmp_path) == ["mine", "mine-smol"]


def test_backbones_do_not_mix(runs):
    write_model(runs.directory / "e4srec_16", runs.directory / "data", RANKS["sasrec"], backbone="smol")
    with pytest.raises(InputError, match=r"e4srec_16 \(smol\) and e4srec_4 \(random\) start from different backbones"):
        summarise(runs)


def test_no_runs_at_all(tmp_path):
    with pytest.raises(InputError, match="no runs there; bash run_tables.sh main demo makes some"):
        write_summaries(tmp_path)
