from reproduce.regimes import regimes
from slmrec.artifacts import Stage, stage_input


def write_run(search, name, learning_rate, backbone, curve, stage="finetune"):
    stage = Stage(
        stage,
        search / name,
        {"learning_rate": learning_rate, "num_layers": 8},
        {"base_model": {"base_model": backbone, "digest": backbone}},
    )
    with stage:
        history = [{"step": 10 * (i + 1), "valid": {"MRR": value}, "train": {}} for i, value in enumerate(curve)]
        best = history[max(range(len(curve)), key=curve.__getitem__)]["step"]
        stage.metrics = {"history": history, "best_step": best, "steps": 10 * len(curve), "train_seconds": 1.5}


def test_all_settings_stand_in_order_with_only_what_differs(tmp_path):
    for name, width in (("narrow", 64), ("wide", 128)):
        with Stage("backbone", tmp_path / name, {"hidden_size": width, "num_layers": 8, "seed": 0}, {}):
            pass
    write_run(tmp_path, "high", 0.01, "narrow", [0.3, 0.2])
    write_run(tmp_path, "low", 0.001, "wide", [0.1, 0.4])
    best, worst = regimes(tmp_path)
    assert (best["name"], best["best_valid_MRR"], best["last_valid_MRR"], best["best_step"], best["steps"]) == (
        "low",
        0.4,
        0.4,
        20,
        20,
    )
    assert (worst["name"], worst["best_valid_MRR"], worst["last_valid_MRR"], worst["best_step"]) == ("high", 0.3, 0.2, 10)
    assert best["setting"] == {"backbone.hidden_size": 128, "learning_rate": 0.001}
    assert worst["setting"] == {"backbone.hidden_size": 64, "learning_rate": 0.01}
    assert len(best["digest"]) == 64


def test_a_pretrained_base_model_is_named(tmp_path):
    with Stage("backbone", tmp_path / "narrow", {"hidden_size": 64}, {}):
        pass
    write_run(tmp_path, "random", 0.01, "narrow", [0.1])
    write_run(tmp_path, "pretrained", 0.01, "smollm2-135m", [0.2])
    settings = {entry["name"]: entry["setting"] for entry in regimes(tmp_path)}
    assert settings["pretrained"] == {"base_model": "smollm2-135m", "backbone.hidden_size": None}
    assert settings["random"] == {"base_model": None, "backbone.hidden_size": 64}


def test_kinds_of_models_are_told_apart(tmp_path):
    """A conventional model's setting says how titles became vectors; a student's, who taught it."""
    text = {}
    for encoder in ("tfidf", "minilm"):
        with Stage("text", tmp_path / encoder, {"encoder": encoder}, {}):
            pass
        text[encoder] = {"text": stage_input(tmp_path / encoder, "text")}
    for name, inputs in ({"plain": {}} | text).items():
        config = {"model": "sasrec", "architecture": {"hidden_size": 4}, "training": {"patience": 5}}
        config |= {"text": {"text_std": 0.06}} if inputs else {}
        with Stage("encoder", tmp_path / "search" / name, config, inputs) as stage:
            history = [{"epoch": epoch, "valid_MRR": 0.1 / epoch, "train_seconds": 2.0} for epoch in (1, 2)]
            stage.metrics = {"history": history, "best_epoch": 1}
    for teacher in ("e4srec_8", "e4srec_16"):
        write_run(tmp_path / "search", teacher, 0.01, "smollm2-135m", [0.1])
        inputs = {
            "base_model": {"base_model": "smollm2-135m", "digest": "d"},
            "teacher": stage_input(tmp_path / "search" / teacher, "finetune"),
        }
        with Stage("distill", tmp_path / "search" / f"of_{teacher}", {"lambda_cos": 1.0}, inputs) as stage:
            stage.metrics = {"history": [{"step": 10, "valid": {"MRR": 0.1}}], "best_step": 10, "steps": 10, "train_seconds": 1.0}
    for rate in (0.1, 0.2):
        write_run(tmp_path / "search", f"generative_{rate}", rate, "smollm2-135m", [rate], stage="openp5")
    found = {entry["name"]: entry for entry in regimes(tmp_path / "search")}
    assert found["generative_0.2"]["setting"] == {"learning_rate": 0.2} and found["generative_0.2"]["stage"] == "openp5"
    assert found["plain"]["setting"] == {"text_std": None, "titles.encoder": None}
    assert found["minilm"]["setting"] == {"text_std": 0.06, "titles.encoder": "minilm"}
    assert {name: found["plain"][name] for name in ("best_step", "steps", "train_seconds")} == {
        "best_step": 1,
        "steps": 2,
        "train_seconds": 4.0,
    }
    assert found["of_e4srec_16"]["setting"] == {"teacher": "e4srec_16"} and found["e4srec_8"]["setting"] == {}


def test_no_search_has_no_settings(tmp_path):
    assert regimes(tmp_path / "search") == []
