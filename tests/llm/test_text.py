"""What the items are called enters the decoder beside their embeddings; and item embeddings that are trained along."""

import json

import pytest
import torch

import distill
import finetune
from slmrec.artifacts import Stage, read_manifest
from slmrec.embeddings import load_item_embeddings, read_item_embeddings, read_text_vectors, save_text_vectors
from slmrec.errors import InputError
from slmrec.llm.ellmrec import next_item_objective
from slmrec.llm.model_directory import load_ellmrec, restore_weights, save_weights

TEXT_WIDTH = 5
WORDS = torch.randn(41, TEXT_WIDTH, generator=torch.Generator().manual_seed(3))


def write_text(directory, item_map):
    with Stage("text", directory, {}, {}, item_map=item_map) as stage:
        save_text_vectors(WORDS, stage.path)
    return directory


@pytest.fixture(scope="module")
def tiny_text(tiny_data, tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text") / "text", read_manifest(tiny_data)["item_map"])


def test_two_projections_are_summed(make_recommender, make_batch):
    model, items = make_recommender(text_vectors=WORDS), torch.tensor([3, 1, 40])
    torch.testing.assert_close(model.item_vectors(items), model.item_projection(model.item_embeddings[items]))  # starts at zero
    torch.nn.init.normal_(model.text_projection.weight)
    by_hand = model.item_embeddings[items] @ model.item_projection.weight.T + model.item_projection.bias
    by_hand = by_hand + WORDS[items] @ model.text_projection.weight.T
    torch.testing.assert_close(model.item_vectors(items), by_hand)
    next_item_objective(model, make_batch([3, 5]))["loss"].backward()
    assert model.text_projection.weight.grad.abs().sum() > 0 and not model.text_vectors.requires_grad


@pytest.mark.parametrize("targets, closing", [("last", 7), ("all", 0)])
def test_both_encodings_read_the_texts(make_recommender, make_batch, targets, closing):
    shape = {"text_vectors": WORDS, "targets": targets, "closing": closing}
    exact, reference = (make_recommender(encoding=encoding, **shape).eval() for encoding in ("exact", "reference"))
    for model in (exact, reference):
        torch.manual_seed(5)
        torch.nn.init.normal_(model.text_projection.weight)
    batch = make_batch([3, 5, 1], targets)
    torch.testing.assert_close(exact(batch).users, reference(batch).users, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(exact(batch).users, make_recommender(targets=targets, closing=closing).eval()(batch).users)


def test_trained_items_get_gradients_from_both_of_their_uses(make_recommender, make_batch):
    model = make_recommender(train_items=True)
    batch = make_batch([3, 5])
    next_item_objective(model, batch)["loss"].backward()
    gradient = model.trained_items.weight.grad
    assert gradient[1:].abs().sum(1).min() > 0 and not gradient[0].any()  # every item is scored
    assert sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in make_recommender().parameters()) == 41 * 8


@pytest.mark.parametrize("extra", [{"text_vectors": WORDS}, {"train_items": True}])
def test_a_checkpoint_restores_them_and_refuses_another_shape(make_recommender, make_batch, tmp_path, extra):
    model, other, plain = make_recommender(**extra), make_recommender(**extra, seed=1), make_recommender()
    for parameter in model.heads().parameters():
        torch.nn.init.normal_(parameter)
    save_weights(model, "base", tmp_path)
    restore_weights(other, tmp_path)
    for name, value in model.heads().state_dict().items():
        assert torch.equal(value, other.heads().state_dict()[name]), name
    if "train_items" in extra:
        with pytest.raises(InputError, match="trains_items is True"):
            restore_weights(plain, tmp_path)
    else:
        save_weights(plain, "base", tmp_path)
        with pytest.raises(InputError, match="text_width is None"):
            restore_weights(other, tmp_path)


def test_a_run_with_texts_and_trained_items_opens_again(tiny_flags, tiny_text, tiny_embeddings, make_batch, tmp_path):
    finetune.main(tiny_flags(output_dir=tmp_path / "model", text=tiny_text) + ["--train_items"])
    manifest = read_manifest(tmp_path / "model", "finetune")
    assert manifest["inputs"]["text"]["stage"] == "text" and "text_vectors.safetensors" in manifest["outputs"]
    saved, start = read_item_embeddings(tmp_path / "model"), load_item_embeddings(tiny_embeddings)
    assert not torch.equal(saved, start)
    torch.testing.assert_close(read_text_vectors(tmp_path / "model")[1:], WORDS[1:])
    model = load_ellmrec(tmp_path / "model").eval()
    assert torch.equal(model.item_matrix()[1:], saved[1:]) and model.text_projection.weight.abs().sum() > 0
    assert model(make_batch([2, 4])).users.isfinite().all()


def test_a_student_and_an_online_teacher_read_texts(tiny_flags, tiny_text, tmp_path):
    flags = tiny_flags(output_dir=tmp_path / "student", text=tiny_text, max_steps=2, num_blocks=2, teacher_layers=4)
    distill.main([*flags, "--online"])
    for directory in (tmp_path / "student", tmp_path / "student" / "teacher"):
        assert json.loads((directory / "recommender.json").read_text())["text_width"] == TEXT_WIDTH
        assert load_ellmrec(directory).text_projection.weight.abs().sum() > 0


def test_texts_of_other_items_are_refused(tiny_flags, tmp_path):
    text = write_text(tmp_path / "text", "other items")
    with pytest.raises(InputError, match="do not number the same items"):
        finetune.main(tiny_flags(output_dir=tmp_path / "model", text=text))
