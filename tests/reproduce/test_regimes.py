from reproduce.regimes import regimes
from slmrec.artifacts import Stage


def write_run(search, name, learning_rate, backbone, curve):
    stage = Stage(
        "finetune",
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


def test_no_search_has_no_settings(tmp_path):
    assert regimes(tmp_path / "search") == []
