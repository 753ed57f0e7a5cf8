"""Going on from a trained model: who is trained on, where new items start, and that what was known is still there."""

import numpy as np
import pytest
import torch

import distill
import finetune
import train_sr_trad
from slmrec.data.__main__ import main as data_stage
from slmrec.data.dataset import SequenceDataset, load_dataset
from slmrec.embeddings import load_item_embeddings
from slmrec.encoders.registry import load_encoder
from slmrec.errors import InputError
from slmrec.llm.model_directory import load_ellmrec, load_heads
from slmrec.training.update import from_neighbours, new_item_vectors, update_users


def dataset_of(sequences, known):
    offsets = np.cumsum([0, *map(len, sequences)])
    return SequenceDataset(np.concatenate(sequences).astype(np.int32), offsets, 9, known=np.asarray(known))


def test_users_with_something_new_and_a_share_of_the_others():
    sequences = [[1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4, 5], [1, 2, 3], *([[1, 2, 3, 4]] * 10)]
    dataset = dataset_of(sequences, [3, 3, 3, 0, *([4] * 10)])
    assert update_users(dataset, 0.0, 0).tolist() == [1, 2, 3]  # user 0 has nothing new, user 3 is new
    assert update_users(dataset, 1.0, 0).tolist() == list(range(14))
    drawn = update_users(dataset, 0.3, 5)
    assert len(drawn) == 3 + round(0.3 * 11) and set(drawn) >= {1, 2, 3}
    assert np.array_equal(drawn, update_users(dataset, 0.3, 5)) and not np.array_equal(drawn, update_users(dataset, 0.3, 6))
    with pytest.raises(InputError, match="hold nothing new"):
        update_users(SequenceDataset(dataset.items, dataset.offsets, 9), 0.2, 0)


def test_a_new_item_starts_as_the_mean_of_the_known_items_beside_it():
    table = torch.tensor([[0.0, 0], [1, 0], [0, 2], [3, 3], [9, 9], [9, 9], [9, 9]])
    items, lengths = np.array([1, 4, 2, 4, 5, 3, 1, 4]), np.array([4, 2, 0, 2])  # rows 1 4 2 4 | 5 3 | | 1 4
    filled = from_neighbours(table, items, lengths, known=3)
    # item 4 stands beside 1, 2, 2, 1: not beside 5, which begins another row; item 5 beside 3; item 6 occurs nowhere
    assert torch.allclose(filled[4], torch.tensor([0.5, 1.0])) and torch.equal(filled[5], table[3])
    assert torch.allclose(filled[6], table[1:4].mean(0)) and torch.equal(filled[:4], table[:4])


def test_targets_of_validation_and_test_say_nothing_about_a_new_item():
    table = torch.randn(10, 4)
    seen = new_item_vectors(table, 8, dataset_of([[1, 2, 9, 3, 4]], [4]), None)
    assert torch.equal(seen[9], table[2])  # 3 is the target of validation
    hidden = new_item_vectors(table, 8, dataset_of([[1, 2, 3, 9, 4]], [3]), None)
    assert torch.allclose(hidden[9], table[1:9].mean(0))


def test_titles_give_a_new_item_its_place():
    """Where vectors are a linear function of the texts, the map finds it."""
    torch.manual_seed(0)
    text, by = torch.randn(41, 3), torch.randn(3, 4)
    table = torch.cat([(text @ by)[:31], torch.zeros(10, 4)])
    filled = new_item_vectors(table, 30, dataset_of([[1, 2, 3]], [0]), text)
    assert torch.allclose(filled[31:], (text @ by)[31:], atol=0.02) and torch.equal(filled[:31], table[:31])


# -- the stages -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Old and updated data: 30 users on 20 items, then 10 of them and two new ones with items 21 and 22."""
    folder = tmp_path_factory.mktemp("update")
    old = "\n".join(f"u{user} " + " ".join(f"i{(user + step) % 20}" for step in range(6)) for user in range(30))
    new = "\n".join(f"u{user} i{(user + 6) % 20} new1 new2 i{(user + 7) % 20}" for user in [*range(10), 40, 41])
    (folder / "old.txt").write_text(old)
    (folder / "new.txt").write_text(new)
    data_stage(["--input", str(folder / "old.txt"), "--output_dir", str(folder / "old")])
    flags = ["--update_from", str(folder / "old"), "--input", str(folder / "new.txt"), "--output_dir", str(folder / "new")]
    data_stage(flags)
    return folder


SMALL = ["--hidden_size", "8", "--device", "cpu", "--report_to", "none"]


@pytest.fixture(scope="module")
def trained(logs):
    """trained(model): an encoder on the old data."""

    def train(model):
        directory = logs / model
        flags = ["--model", model, "--data", str(logs / "old"), "--output_dir", str(directory), "--num_epochs", "1", *SMALL]
        train_sr_trad.main(flags)
        return directory

    return train


def go_on(logs, model, *flags, output="updated"):
    directory = logs / f"{model}_{output}"
    train_sr_trad.main(
        ["--model", model, "--update_from", str(logs / model), "--data", str(logs / "new"), "--output_dir", str(directory)]
        + ["--device", "cpu", "--report_to", "none", "--num_epochs", "1", *flags]
    )
    return directory


@pytest.mark.parametrize("model", ["sasrec", "hgn", "maerec", "s3rec"])
def test_an_encoder_goes_on_where_it_was(logs, trained, model):
    """With a learning rate of next to nothing what is known stays what it was; new items and users have finite vectors."""
    before = load_encoder(trained(model))
    after = load_encoder(go_on(logs, model, "--learning_rate", "1e-12"))
    for name, tensor in before.state_dict().items():
        if tensor.is_floating_point() and name != "table":  # MAERec's is taken over the graph of all items
            part = after.state_dict()[name][tuple(map(slice, tensor.shape))]
            assert torch.allclose(part, tensor, atol=1e-6), name
    vectors = after.item_tables()[0].weight
    assert len(vectors) == 23 and vectors[21:].isfinite().all() and (vectors[21:].norm(dim=1) > 0).all()


def test_only_the_chosen_rows_are_trained_on(logs, trained, monkeypatch):
    trained("sasrec")
    seen = set()
    import slmrec.training.encoder_loop as loop

    step = loop.train_step
    monkeypatch.setattr(
        loop,
        "train_step",
        lambda model, batch, *rest, **more: seen.update(batch["users"].tolist()) or step(model, batch, *rest, **more),
    )
    go_on(logs, "sasrec", "--replay", "0", output="new_only")
    assert seen == {*range(10), 30, 31}


@pytest.mark.parametrize(
    "flags, reason",
    [
        (["--hidden_size", "16"], "--hidden_size 16: .* has 8, and an update keeps it"),
        (["--replay", "2"], "--replay 2: must be a share from 0 to 1"),
    ],
)
def test_what_an_update_does_not_change_is_refused(logs, trained, flags, reason):
    trained("sasrec")
    with pytest.raises(InputError, match=reason):
        go_on(logs, "sasrec", *flags, output="refused")


def test_other_refusals(logs, trained, tiny_data, tmp_path):
    trained("sasrec")
    output = ["--output_dir", str(tmp_path / "out"), "--report_to", "none"]
    with pytest.raises(InputError, match="gru4rec: .* has sasrec"):
        go_on(logs, "sasrec", "--model", "gru4rec", output="other")
    with pytest.raises(InputError, match="its first items are not those"):
        train_sr_trad.main(["--update_from", str(logs / "sasrec"), "--data", str(tiny_data), *output])
    with pytest.raises(InputError, match="--replay is only for --update_from"):
        train_sr_trad.main(["--replay", "0.5", "--data", str(tiny_data), *output])
    assert not (tmp_path / "out").exists()


def test_counting_models_are_made_anew(logs):
    train_sr_trad.main(
        ["--model", "markov", "--data", str(logs / "old"), "--output_dir", str(logs / "markov"), "--report_to", "none"]
    )
    with pytest.raises(InputError, match="markov is not trained by steps"):
        train_sr_trad.main(
            ["--model", "markov", "--update_from", str(logs / "markov"), "--data", str(logs / "new")]
            + ["--output_dir", str(logs / "m2")]
        )


def test_teacher_and_student_go_on_where_they_were(logs, write_embeddings_of, tiny_backbone):
    """After one step at next to no learning rate all that was trained is what it was, and the new items can be ranked."""
    quick = ["--max_steps", "1", "--save_steps", "1", "--warmup_steps", "0", "--num_candidates", "10", "--device", "cpu"]
    quick += ["--base_model", str(tiny_backbone), "--report_to", "none", "--targets", "all", "--num_layers", "2"]
    old = ["--data", str(logs / "old"), "--embeddings", str(write_embeddings_of(logs / "old", logs / "e_old", 20)), *quick]
    new = ["--data", str(logs / "new"), "--embeddings", str(write_embeddings_of(logs / "new", logs / "e_new", 22)), *quick]
    new += ["--learning_rate", "1e-12", "--replay", "0.5"]
    student = ["--num_blocks", "2", "--train_items"]  # its items are trained along, the teacher's are not
    places = {name: str(logs / name) for name in ("teacher", "student", "newer_teacher", "newer_student")}
    finetune.main([*old, "--output_dir", places["teacher"]])
    distill.main([*old, *student, "--teacher", places["teacher"], "--output_dir", places["student"]])
    finetune.main([*new, "--update_from", places["teacher"], "--output_dir", places["newer_teacher"]])
    student += ["--update_from", places["student"]]
    distill.main([*new, *student, "--teacher", places["newer_teacher"], "--output_dir", places["newer_student"]])
    for name in ("teacher", "student"):
        before, after = load_heads(logs / name), load_heads(logs / f"newer_{name}")
        for head, tensor in before.items():
            assert torch.allclose(after[head][: len(tensor)], tensor, atol=1e-6), head
        items = load_ellmrec(places[f"newer_{name}"]).item_matrix()
        assert len(items) == 23 and torch.allclose(items[21:], load_item_embeddings(logs / "e_new")[21:], atol=1e-6)
    with pytest.raises(InputError, match="--update_from goes with --teacher alone"):
        distill.main([*new, *student, "--online", "--output_dir", str(logs / "x")])
    with pytest.raises(InputError, match="max_length is 30, that of the model 20"):
        finetune.main([*new, "--max_length", "20", "--update_from", places["teacher"], "--output_dir", str(logs / "x")])


@pytest.fixture(scope="module")
def write_embeddings_of():
    from slmrec.artifacts import Stage, read_manifest, stage_input
    from slmrec.embeddings import save_item_embeddings

    def write(data, directory, num_items):
        table = torch.randn(num_items + 1, 8, generator=torch.Generator().manual_seed(num_items))
        item_map = read_manifest(data)["item_map"]
        with Stage("embeddings", directory, {"made_with": num_items}, {"data": stage_input(data)}, item_map=item_map) as stage:
            save_item_embeddings(table, stage.path)
        assert load_dataset(data).num_items == num_items
        return directory

    return write
