import json

from reproduce.analysis import starts
from slmrec.data.dataset import load_dataset


def test_untrained_models_are_ranked_by_start(tiny_data, tiny_embeddings, tiny_backbone, tmp_path, capsys):
    file = tmp_path / "made" / "starts.json"
    flags = {"data": tiny_data, "embeddings": tiny_embeddings, "base_model": tiny_backbone, "num_layers": 2, "users": 20}
    starts.main([text for name, value in flags.items() for text in (f"--{name}", str(value))] + ["--json", str(file)])
    result = json.loads(file.read_text())
    assert [entry["start_ratio"] for entry in result["starts"]] == [None, 1, 3, 10, 30, 100]
    assert all(0 < entry["valid_MRR"] <= 1 for entry in result["starts"])
    assert result["users"] == 20 and len(result["base_model"]["digest"]) == 64
    assert capsys.readouterr().out.count("validation MRR") == 6


def test_the_first_users_alone_are_ranked(tiny_data):
    whole = load_dataset(tiny_data)
    some = starts.first_users(whole, 5)
    assert some.num_users == 5 and some.sequence(4).tolist() == whole.sequence(4).tolist()
