"""Tables from hand-written summaries: two models, two seeds, means and deviations worked out by hand."""

from __future__ import annotations

import csv

import pytest

from reproduce import efficiency_tables, model_tables, published, tables
from reproduce.experiments import paper_rows
from reproduce.hyperparameters import Line
from reproduce.table import Cell, Table, markdown_rows, to_markdown, to_text, write_tables

COMMAND = "bash run_tables.sh main scientific --seeds 2"
SPEED = {"seconds": {"reference": 6.0, "exact": 1.5}, "speedup": 4.0, "predicted": 4.25, "utilisation": 0.5}
TOKENS = dict.fromkeys(("reference_first_layer_per_row", "mean_history"), 9.0)
TOKENS |= dict.fromkeys(("exact_first_layer_per_row", "exact_last_layer_per_row", "minimum_per_row"), 1.0)


def metrics(mrr, first, **size):
    """All metrics from two of them; the others follow MRR."""
    return {"HR@1": first, "HR@5": 2 * mrr, "HR@10": 3 * mrr, "NDCG@5": mrr, "NDCG@10": 1.5 * mrr, "MRR": mrr, "users": 10} | size


def a_run(seed, stage, mrr, first):
    ranked = {"sampled": metrics(mrr, first, candidates=999), "full": metrics(mrr / 2, first / 2, items=4385)}
    history = [{"step": 10 * n, "valid_MRR": mrr + n / 100, "train": {"ce": 7.0 - n, "cos": 0.2 / n}} for n in (1, 2)]
    return {
        "seed": seed,
        "metrics": ranked,
        "parameters": 1_637_888,
        "history": history,
        "provenance": {
            "stage": stage,
            "command": f"python {stage}.py --seed {seed}",
            "digest": f"{stage}{seed}".encode().hex().ljust(64, "0"),
            "commit": "c" * 40,
            "dirty": False,
            "device": "cpu",
            "libraries": {"python": "3.11.7", "torch": "2.13.0"},
            "config": {"num_layers": 8, "training": {"learning_rate": 0.0003}},
        },
    }


def model_summary(experiment="main", dataset="scientific", synthetic=False):
    """SASRec with MRR 10% and 12%, HR@1 6% and 8%; a student with 15% and 5% whose second seed is missing."""
    sasrec = [a_run(0, "encoder", 0.10, 0.06), a_run(1, "encoder", 0.12, 0.08)]
    models = [
        {"name": "sasrec", "label": "SASRec", "x": 1, "runs": sasrec, "missing": []},
        {
            "name": "slmrec_4_8",
            "label": "SLMRec_4<-8",
            "x": 4,
            "runs": [a_run(0, "distill", 0.15, 0.05)],
            "missing": [{"seed": 1, "command": COMMAND}],
        },
    ]
    comparison = {"model": "slmrec_4_8", "against": "sasrec", "ranking": "sampled", "metric": "MRR", "users": 10, "seeds": 1}
    comparison |= {"better": 1200, "equal": 3, "worse": 4, "mean_difference": 0.0123, "p_value": 0.0004, "test": "a test"}
    comparison |= {"signed_rank_p_value": 0.25, "signed_rank_sum": -7.0}
    return {
        "experiment": experiment,
        "dataset": dataset,
        "synthetic": synthetic,
        "models": models,
        "comparisons": [comparison],
    }


def stats_summary(dataset="scientific", synthetic=False):
    stats = {"users": 100, "items": 50, "interactions": 800, "density": 0.16, "mean_length": 8.0, "raw_rows": 2000}
    stats |= {"raw_users": 300, "raw_items": 70}
    stats |= {"dropped": {"rating": 1000, "k_core": 200}, "rules": {"rating": "rating > 3", "k_core": "at least 5"}}
    return {"experiment": "stats", "dataset": dataset, "synthetic": synthetic, "stats": stats}


def depth_infer_summary():
    layers = [
        {"layer": 7, "final_norm": False, "metrics": {"sampled": metrics(0.05, 0.02, candidates=999)}},
        {"layer": 8, "final_norm": True, "metrics": {"sampled": metrics(0.10, 0.06, candidates=999)}},
    ]
    provenance = a_run(0, "depth-infer", 0.1, 0.1)["provenance"]
    runs = [{"seed": 0, "model": "e4srec_8", "layers": layers, "provenance": provenance}]
    missing = [{"seed": seed, "command": "bash run_tables.sh depth-infer"} for seed in (1, 2)]
    return {"experiment": "depth-infer", "dataset": "scientific", "synthetic": False, "runs": runs, "missing": missing}


def layers_summary():
    provenance = a_run(0, "layers", 0.1, 0.1)["provenance"]
    cka = [[None, None, None], [None, 1.0, 0.8], [None, 0.8, 1.0]]
    runs = [
        {"seed": seed, "model": "e4srec_2", "block_influence": influence, "cka": cka, "provenance": provenance}
        for seed, influence in enumerate([[0.5, 0.1], [0.7, 0.1]])
    ]
    return {"experiment": "layers", "dataset": "scientific", "synthetic": False, "runs": runs, "missing": []}


def cold_summary():
    empty, full = dict.fromkeys(("MRR", "HR@10", "NDCG@10")), {"MRR": 0.1, "HR@10": 0.2, "NDCG@10": 0.15}
    groups = [{"group": "1-2", "users": 0, "sampled": empty}, {"group": "3-4", "users": 1234, "sampled": full}]
    models = [{"name": "sasrec", "label": "SASRec", "groups": {"history": groups, "popularity": groups}}]
    return {"experiment": "cold", "dataset": "scientific", "synthetic": False, "models": models, "missing": []}


SECONDS = {"seconds": {"slow": 6.0, "fast": 1.5}}


def efficiency_summary(dataset="scientific"):
    methods = {"E4SRec_8 reference": [9.0, 3.0, 0.5, 0.6], "SLMRec_4<-8 exact": [1.0, 0.25, 0.1, 0.2]}
    seven = {name: {"Cloth": hours[:2], "Movie": hours[:2]} for name, hours in methods.items()}
    eight = {name: hours[1:2] for name, hours in methods.items()}
    benchmark = {
        "encoding": {"forward": SPEED, "train": SPEED, "tokens": TOKENS, "max_abs_diff": 1e-6, "matrix_product_gflops": 60.0},
        "memory_mib": {"E4SRec_8 exact train": {"peak": 1220.94, "step": 698.5}},
        "models": {
            "baseline": "E4SRec_8 reference",
            "forward": {"SLMRec_4<-8 exact": SECONDS | {"speedup": 47.6, "predicted": 48.0, "utilisation": 0.5}},
            "train": {
                "SLMRec_4<-8 exact": SECONDS | {"speedup": 20.0, "predicted": 22.0, "utilisation": 0.5},
                "SLMRec_4<-8 exact, cached teacher": SECONDS | {"speedup": 31.0, "predicted": 30.0, "utilisation": 0.5},
            },
        },
        "parameters": {
            "SLMRec_4": {"parameters": 3_207_936, "trained_parameters": 2_899_968},
            "E4SRec_8": {"parameters": 6_415_872, "trained_parameters": 5_799_936},
            "E4SRec_32 at LLaMA-7B shape": {"parameters": 6_631_000_000, "trained_parameters": 23_000_000},
        },
        "tables": {f"Table {n}": {"paper": {}, "ours (here)": rows} for n, rows in ((5, methods), (7, seven), (8, eight))},
        "lengths": "invented lengths",
        "configuration": {"batch_size": 256},
        "environment": {
            "command": "python -m reproduce.efficiency",
            "device": "a CPU",
            "git": {"commit": "d" * 40, "dirty": True},
            "libraries": {"torch": "2.13.0"},
        },
    }
    return {"experiment": "efficiency", "dataset": dataset, "benchmark": benchmark}


def theory_summary():
    stack = {"layers": 8, "tokens": 12, "width": 16, "proposition_1_error": 1e-16, "proposition_2_error": 2e-16}
    stack["proposition_1_error_printed_step"] = 0.54
    made = {"command": "python -m reproduce.theory", "commit": None, "dirty": None, "libraries": {"numpy": "2.4.6"}}
    return {"experiment": "theory", "seed": 0, "stacks": [stack]} | made


ALL_KINDS = [
    model_summary("main", "cloth"),
    model_summary("ablation", "cloth"),
    stats_summary("cloth"),
    depth_infer_summary(),
    layers_summary(),
    cold_summary(),
    efficiency_summary(),
    theory_summary(),
]


def column(table, name):
    """First cell -> the cell under a header, for rows that are complete."""
    index = table.header.index(name)
    return {row[0]: row[index] for row in table.rows if len(row) == len(table.header)}


# -- models -------------------------------------------------------------------------------------------------------------------


def test_mean_and_deviation_by_hand():
    sampled, full, _ = tables.tables(model_summary())
    assert sampled.rows[0][:2] == ["SASRec", "7.00 ± 1.41"]  # 6 and 8: the deviation is the square root of 2
    assert column(sampled, "MRR") == {"SASRec": "11.00 ± 1.41", "SLMRec_4<-8": "15.00"}
    assert column(full, "MRR") == {"SASRec": "5.50 ± 0.71", "SLMRec_4<-8": "7.50"}
    assert column(sampled, "Seeds") == {"SASRec": "2", "SLMRec_4<-8": "1 of 2"}
    assert column(sampled, "Parameters")["SASRec"] == "1,637,888"
    assert "1 + 999 candidates" in sampled.title and "all 4385 items" in full.title


def test_rank_is_the_last_column_of_main():
    sampled = tables.tables(model_summary())[0]
    assert sampled.header[-1] == "Rank"  # SASRec is first in HR@1 and second in five others: 11 / 6
    assert column(sampled, "Rank") == {"SASRec": "1.83", "SLMRec_4<-8": "1.17"}
    assert "Rank" not in tables.tables(model_summary("online"))[0].header


def test_what_training_the_conventional_models_took():
    summary = model_summary("encoders")
    first, second = (run for run in summary["models"][0]["runs"])
    first["cost"] = {"epochs": 15, "best_epoch": 10, "seconds_per_epoch": 20.0, "peak_memory_mib": 700.4}
    second["cost"] = {"epochs": 12, "best_epoch": 7, "seconds_per_epoch": 22.5, "peak_memory_mib": None}
    del summary["models"][1]
    table = tables.tables(summary)[-1]  # the last of all
    assert table.rows == [["SASRec", "15 (10), 12 (7)", "21.2", "700"]]  # mean of 20 and 22.5, and the only memory that is known
    assert tables.tables(summary)[0].header[-1] == "Rank"


def test_public_numbers_stand_beside_ours():
    """MRR 10% and 12% give a full NDCG@10 of 7.5% and 9% (see `metrics`), 8.25 on average; the public one is 5.68."""
    summary = model_summary("encoders", dataset="beauty")
    for run in summary["models"][0]["runs"]:
        run["cost"] = {"epochs": 1, "best_epoch": 1, "seconds_per_epoch": 1.0, "peak_memory_mib": 1.0}
    del summary["models"][1]
    shown = tables.tables(summary)[-2].rows
    rows = {row[0]: row[1:-1] for row in shown}
    assert rows["SASRec"] == ["NDCG@10", "5.68", "8.25 ± 1.06", "+2.57"]
    assert rows["caser"] == ["HR@10", "4.27", "–", "–"]
    assert shown[-2][:-1] == ["highest found / SASRec", "HR@10", "10.02", "16.50 ± 2.12", "+6.48"]


def test_beside_the_highest_public_number_stands_what_validation_chose():
    """The student's validation MRR is 17%, SASRec's 12% and 14%, whatever their test metrics say."""
    models = model_summary()["models"]
    models[1]["runs"][0]["metrics"]["full"]["HR@10"] = 0.001
    assert model_tables.chosen_on_validation(models, "HR@10") == ("SLMRec_4<-8", [0.1])
    text = model_summary("text", dataset="beauty")
    labels = [row[0] for row in model_tables.public_table(text).rows]
    assert labels == ["SASRec", "highest found / SLMRec_4<-8", "highest found / SLMRec_4<-8"]


def test_a_missing_run_is_a_row_with_its_command():
    sampled = tables.tables(model_summary())[0]
    assert sampled.rows[2] == ["SLMRec_4<-8, seed 1", f"missing: {COMMAND}"]
    assert len(sampled.rows) == 3


def test_nothing_measured_leaves_the_missing_rows():
    summary = model_summary()
    for model in summary["models"]:
        model |= {"runs": [], "missing": [{"seed": seed, "command": COMMAND} for seed in (0, 1)]}
    (table,) = tables.tables(summary | {"comparisons": []})
    assert table.rows == [[f"{label}, seed 0, 1", f"missing: {COMMAND}"] for label in ("SASRec", "SLMRec_4<-8")]
    assert model_tables.rank_table([summary]) is None


def test_comparison_by_hand():
    table = tables.tables(model_summary())[2]
    assert table.rows == [
        ["SLMRec_4<-8 against SASRec", "MRR, sampled", "+1.23", "< 0.001", "1,200", "3", "4", "second", "0.250", "1"]
    ]
    assert "a test" in table.note and "not adjusted" in table.note


def test_mean_rank_over_data_sets():
    second = model_summary(dataset="cloth")
    second["models"][1]["runs"] = []
    table = model_tables.rank_table([model_summary(), second, model_summary(dataset="demo", synthetic=True)])
    # SASRec: 1, 2, 2, 2 in scientific and 1 four times in cloth; the student: 2, 1, 1, 1 in scientific
    assert column(table, "Rank") == {"SLMRec_4<-8": "1.25", "SASRec": "1.38"}
    assert column(table, "paper Rank (cloth and movie)") == {"SLMRec_4<-8": "1.50", "SASRec": "11.63"}
    assert "scientific, cloth." in table.note and "demo" not in table.note


# -- the paper ----------------------------------------------------------------------------------------------------------------


def paper_header(table):
    return [name for name in table.header if name.startswith("paper")]


def test_the_papers_row_stands_beside_ours():
    sampled, full, _ = tables.tables(model_summary(dataset="cloth"))
    assert paper_header(sampled) == ["paper HR@1", "paper HR@5", "paper NDCG@5", "paper MRR"]
    assert paper_header(full) == []  # the paper did not rank all items
    row = sampled.rows[1]
    assert row[0] == "SLMRec_4<-8" and row[-5:-1] == ["16.69", "19.47", "18.07", "18.74"]
    (other,) = [row for row in sampled.rows if row[0] == "Open-P5"]  # not run here
    assert set(other[1:9]) == {"–"} and other[9:] == ["14.13", "17.68", "17.02", "–", "–"]


@pytest.mark.parametrize("dataset, experiment", [("scientific", "main"), ("cloth", "online"), ("scientific", "ablation")])
def test_no_paper_columns_where_the_paper_has_nothing(dataset, experiment):
    for table in tables.tables(model_summary(experiment, dataset)):
        assert paper_header(table) == []
        assert len(table.rows) <= 3


def test_ablation_rows_are_found_by_their_models():
    summary = model_summary("ablation", "movie")
    names = {"slmrec_cos": "14.83", "slmrec_cos_norm": "14.86", "slmrec_cos_ms": "15.05", "slmrec_4_8": "15.29"}
    names |= {"e4srec_4": "11.80", "x": "–"}
    model = summary["models"][0]
    summary["models"] = [model | {"name": name, "label": name} for name in names]
    assert column(tables.tables(summary | {"comparisons": []})[0], "paper HR@1") == names


def test_the_papers_e4srec_has_32_layers():
    rows = paper_rows("main")
    assert (rows["e4srec_32"], rows["e4srec_8"], rows["s3rec"]) == ("E4SRec", "E4SRec_8", "S3-Rec")
    assert efficiency_tables.PAPER_METHODS["E4SRec_32 exact"] == "E4SRec"
    assert efficiency_tables.PAPER_METHODS["SLMRec_4<-8 exact"] == "SLMRec_4<-8"


def test_nothing_of_the_paper_is_on_our_side(monkeypatch):
    """Other numbers in the paper change columns named so, and no other cell."""
    before = [table for summary in ALL_KINDS for table in tables.tables(summary)]
    for name in ("TABLE_2_3", "TABLE_4_9"):
        rows = getattr(published, name)
        changed = {key: {data: dict.fromkeys(row, 77.0) for data, row in by_data.items()} for key, by_data in rows.items()}
        monkeypatch.setattr(published, name, changed)
    for name in ("TABLE_5", "TABLE_8"):
        monkeypatch.setattr(published, name, {key: (77.0,) * len(row) for key, row in getattr(published, name).items()})
    monkeypatch.setattr(published, "TABLE_7", {key: dict.fromkeys(row, (77.0, 77.0)) for key, row in published.TABLE_7.items()})
    monkeypatch.setattr(published, "TABLE_1", dict.fromkeys(published.TABLE_1, published.DatasetSize(77, 77, 77)))
    after = [table for summary in ALL_KINDS for table in tables.tables(summary)]
    different = {
        table.header[index]
        for old, table in zip(before, after, strict=True)
        for first, second in zip(old.rows, table.rows, strict=True)
        for index, (one, other) in enumerate(zip(first, second, strict=True))
        if one != other
    }
    assert {"paper MRR", "paper users", "paper inference hours"} <= different
    assert all(name.startswith("paper") for name in different)


# -- other experiments --------------------------------------------------------------------------------------------------------


def test_data_sets_beside_table_1():
    table, rules = tables.tables(stats_summary())
    assert table.rows == [["scientific", "300", "70", "2,000", "100", "50", "800", "16.000%", "8.00"]]
    assert rules.rows == [["rating", "rating > 3", "1,000"], ["k_core", "at least 5", "200"]]
    both = tables.stats_table([stats_summary(), stats_summary("music"), stats_summary("demo", True)])
    assert [row[9:] for row in both.rows] == [["–"] * 4, ["112,395", "73,713", "1,443,755", "0.0174%"], ["–"] * 4]
    assert both.rows[2][0] == "demo (SYNTHETIC data)"


def test_settings_that_were_tried():
    entry = {"setting": {"learning_rate": 0.001, "item_dropout": None}, "best_valid_MRR": 0.12345, "last_valid_MRR": 0.1}
    entry |= {"best_step": 132, "steps": 660, "train_seconds": 228.6, "stage": "finetune"}
    other = entry | {"stage": "encoder", "setting": {"text_std": 0.06}}
    summary = {"experiment": "regimes", "dataset": "scientific", "synthetic": False, "seeds": [0], "settings": [entry, other]}
    table, conventional = tables.tables(summary)
    assert table.header[:2] == ["learning_rate", "item_dropout"]
    assert table.rows == [["0.001", "–", "12.35", "10.00", "132 of 660", "229"]]
    assert conventional.header == ["text_std", "Best validation MRR", "Last", "Best epoch", "Seconds"]
    assert (conventional.title.rpartition(": ")[2], conventional.rows[0][0]) == ("conventional models", "0.06")


def test_layers_of_one_model():
    (table,) = tables.tables(depth_infer_summary())
    assert [row[:4] for row in table.rows[:2]] == [["e4srec_8", "7", "no", "2.00"], ["e4srec_8", "8", "yes", "6.00"]]
    assert table.rows[2] == ["run, seed 1, 2", "missing: bash run_tables.sh depth-infer"]


def test_block_influence():
    (table,) = tables.tables(layers_summary())
    assert table.rows == [["e4srec_2", "1", "0.60 ± 0.14", "–", "2"], ["e4srec_2", "2", "0.10 ± 0.00", "0.80 ± 0.00", "2"]]


def test_groups_of_users():
    history, popularity = tables.tables(cold_summary())
    assert history.rows == [["SASRec", "1-2", "0", "–", "–", "–"], ["SASRec", "3-4", "1,234", "10.00", "20.00", "15.00"]]
    assert "target in the training parts" in popularity.title


def test_efficiency():
    speed, ratios, memory, parameters, five, seven, eight = tables.tables(efficiency_summary())
    assert speed.rows[0] == ["forward", "reference", "6", "exact", "1.5", "4.00", "4.25", "0.50"]
    assert ratios.header == [
        "E4SRec_8 reference over SLMRec_4<-8 exact",
        "paper (E4SRec_32)",
        "Measured here",
        "Predicted by the token counts",
    ]
    assert ratios.rows == [
        ["Inference", "8.0", "47.6", "48.0"],
        ["Training, the teacher running along", "6.6", "20.0", "22.0"],
        ["Training, the teacher's states cached", "–", "31.0", "30.0"],
        ["Trained parameters", "7.7", "2.0", "–"],
        ["Parameters at inference", "7.0", "2.0", "–"],
    ]
    assert memory.rows == [["E4SRec_8 exact train", "1,220.9", "698.5"]]
    assert parameters.rows[0] == ["SLMRec_4", "3,207,936", "2,899,968"]
    assert five.rows[0] == ["E4SRec_8 reference", "9", "3", "0.5", "0.6", "–", "–", "–", "–"]
    assert five.rows[1] == ["SLMRec_4<-8 exact", "1", "0.25", "0.1", "0.2", "0.6", "0.052", "0.003", "0.944"]
    assert ["SLMRec_4<-8 exact, Movie", "1", "0.25", "0.15", "0.03"] in seven.rows
    assert ["E4SRec, Sport", "–", "–", "6.75", "0.66"] in seven.rows
    assert ["SASRec", "–", "0.015"] in eight.rows


def test_theory():
    (table,) = tables.tables(theory_summary())
    assert table.rows == [["8", "12", "16", "1.0e-16", "5.4e-01", "2.0e-16"]]


def test_hyperparameters():
    line = Line("adam_beta2", {"Cloth": "0.999", "Sport": "9.999"}, {"Cloth": "0.999", "Sport": "0.999"})
    table = tables.hyperparameter_table([line])
    assert table.header == ["Parameter", "Cloth", "paper Cloth", "Sport", "paper Sport", "Differs"]
    assert table.rows == [["adam_beta2", "0.999", "0.999", "0.999", "9.999", "Sport"]]


# -- formats ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("summary", ALL_KINDS, ids=lambda summary: summary["experiment"])
def test_rows_fit_their_header(summary):
    for table in tables.tables(summary):
        short = [row for row in table.rows if len(row) != len(table.header)]
        assert all(len(row) == 2 and row[1].startswith("missing: ") for row in short)


@pytest.mark.parametrize("summary", ALL_KINDS, ids=lambda summary: summary["experiment"])
def test_csv_files_hold_one_table_each_with_every_full_row(summary, tmp_path):
    found = tables.tables(summary)
    write_tables(found, tmp_path / "x")
    lines = {path.name: list(csv.DictReader(open(path, newline=""))) for path in tmp_path.glob("*.csv")}
    assert sum(map(len, lines.values())) == sum(len(table.full_rows) for table in found)
    for rows in lines.values():
        assert all(None not in row and None not in row.values() for row in rows)  # as many cells as columns
        assert not any("missing: " in cell or "±" in cell for row in rows for cell in row.values())


def test_csv_numbers_are_in_full_and_rankings_share_a_file(tmp_path):
    write_tables(tables.tables(model_summary()), tmp_path / "main")
    with open(tmp_path / "main.csv", newline="") as stream:
        sampled, student, full, _ = csv.DictReader(stream)
    assert (sampled["ranking"], full["ranking"], student["Model"]) == ("sampled", "full", "SLMRec_4<-8")
    assert float(sampled["MRR"]) == pytest.approx(11) and float(sampled["MRR sd"]) == pytest.approx(2**0.5)
    assert (sampled["Parameters"], student["Seeds"], student["MRR sd"]) == ("1637888", "1", "")
    with open(tmp_path / "main-paired.csv", newline="") as stream:
        (pair,) = csv.DictReader(stream)
    assert (pair["Model"], pair["Against"], pair["Metric"], pair["ranking"]) == ("SLMRec_4<-8", "SASRec", "MRR", "sampled")
    assert float(pair["p"]) == 0.0004


def test_the_best_of_a_column():
    """Of two equal numbers none is the best, nor in a column that is not marked so."""
    rows = [["x", Cell("1.00", 1.0), Cell("3", 3)], ["y", Cell("2.00", 2.0), Cell("3", 3)], ["z", "missing: q"]]
    table = Table("t", "", ["Model", "a", "b"], rows, best=("a", "b"))
    assert [table.highest(column) for column in range(3)] == [None, 2.0, None]
    assert Table("t", "", ["Model", "a", "b"], rows, best=("b",)).highest(1) is None


def test_text_by_hand():
    assert to_text(["model", "s"], [["a", "1.5"], ["longer", "10"]]) == "model     s\n-----------\na       1.5\nlonger   10"


def test_markdown_by_hand():
    table = Table("t", "", ["a", "b", "c"], [["x|y", "1", "2"], ["z", "missing: q"]], "note")
    assert to_markdown(table) == "**t**\n\n| a | b | c |\n|---|---|---|\n| x\\|y | 1 | 2 |\n| z | missing: q |  |\n\nnote\n"


def test_synthetic_data_are_named_in_every_title():
    for summary in (model_summary(synthetic=True), cold_summary() | {"synthetic": True}):
        assert all(table.title.startswith("SYNTHETIC data: ") for table in tables.tables(summary))
    assert "SYNTHETIC" not in tables.tables(model_summary())[0].title


@pytest.mark.parametrize(
    "name, shown",
    [
        ("a|b", r"a\|b"),
        ("<script>alert(1)</script>", r"\<script>alert(1)\</script>"),
        ("*bold* _sly_ `code` [link](x)", r"\*bold\* \_sly\_ \`code\` \[link\](x)"),
        ("two\nlines\r\n| more |", r"two lines \| more \|"),
        ("back\\slash", r"back\\slash"),
        ("SLMRec_4<-8 online, p < 0.05, e4srec_8", "SLMRec_4<-8 online, p < 0.05, e4srec_8"),
    ],
)
def test_names_are_shown_as_they_are(name, shown):
    assert markdown_rows([name], [[name]]) == [f"| {shown} |", "|---|", f"| {shown} |"]
    assert to_markdown(Table(name, "", ["x"], [["y"]], "")).startswith(f"**{shown}")
