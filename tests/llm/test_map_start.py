import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2Model

import distill
import finetune
from slmrec.artifacts import read_manifest
from slmrec.errors import InputError
from slmrec.llm.arguments import EllmArguments
from slmrec.llm.backbone import load_backbone_config, plain_backbone
from slmrec.llm.map_start import final_norm_weight, mean_token_length, passing_maps, resolve_start, start_passing
from slmrec.llm.model_directory import load_ellmrec


def silence(model):
    """Let no layer add anything to what enters it."""
    with torch.no_grad():
        for layer in plain_backbone(model.backbone).layers:
            for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
                base = getattr(linear, "base_layer", linear)
                base.weight.zero_()
                if linear is not base:
                    linear.lora_B["default"].weight.zero_()
    return model.eval()


def test_maps_by_hand():
    """d0 = 1, d1 = 2. Items of length 3 and 5 (mean 4), tokens of length 2, ratio 6: c = 6 * 2 / 4 = 3.

    Q is a unit column (a, b), so c Q e = (3 a e, 3 b e). The norm divides it by 3 |e| / sqrt(2) and multiplies by g = (2, 0.5);
    Q^T / g * (4 / sqrt(2)) = (a / 2, 2 b) * 4 / sqrt(2), so the user vector is sqrt(2) sign(e) * 4 / sqrt(2) = 4 sign(e).
    """
    items = torch.tensor([[0.0], [3.0], [-5.0]])
    item_map, user_map = passing_maps(items, 2.0, torch.tensor([2.0, 0.5]), ratio=6.0, seed=0)
    (a, b) = (item_map / 3).flatten().tolist()
    assert a**2 + b**2 == pytest.approx(1)
    assert user_map.flatten().tolist() == pytest.approx([a / 2 * 4 / 2**0.5, 2 * b * 4 / 2**0.5])
    for item in (3.0, -5.0):
        state = item_map.flatten() * item
        normed = state / state.square().mean().sqrt() * torch.tensor([2.0, 0.5])
        assert float(user_map @ normed) == pytest.approx(4.0 if item > 0 else -4.0)
    longer = passing_maps(items, 2.0, torch.tensor([2.0, 0.5]), ratio=6.0, seed=0, user_length=11.0)
    torch.testing.assert_close(longer[1], user_map * 11 / 4)
    torch.testing.assert_close(longer[0], item_map)


@pytest.mark.parametrize("kind, lora", [("llama", False), ("llama", True), ("qwen2", False)])
@torch.no_grad()
def test_a_decoder_that_adds_nothing_returns_the_last_items_own_vector(make_recommender, make_batch, kind, lora):
    model = silence(make_recommender(3, kind=kind, lora=lora, targets="all", closing=0, supervised_layers=(1, 2)))
    decoder = plain_backbone(model.backbone)
    decoder.norm.weight.copy_(torch.rand(32) + 0.5)
    start_passing(model, 30.0, seed=0)
    batch = make_batch([4, 1, 30], targets="all")
    encoded, items = model(batch), model.item_matrix()
    own = items[batch["history"]]
    mean_length = items[1:].norm(dim=1).mean()
    expected = own / own.norm(dim=1, keepdim=True) * mean_length
    torch.testing.assert_close(encoded.users, expected, atol=1e-4, rtol=1e-4)
    for layer, users in encoded.block_users.items():  # before the final norm: each at its own length
        torch.testing.assert_close(users, own, atol=1e-4, rtol=1e-4, msg=f"layer {layer}")
    entered = model.item_projection(items[1:]).norm(dim=1).mean()
    assert float(entered) == pytest.approx(30 * mean_token_length(decoder), rel=1e-4)


def test_maps_of_a_decoder_narrower_than_the_embeddings():
    """Rows of Q are orthonormal then: what passes is the part of an item that lies in their span."""
    items = torch.cat([torch.zeros(1, 6), torch.randn(20, 6, generator=torch.Generator().manual_seed(0))])
    item_map, user_map = passing_maps(items, 1.0, torch.ones(4), ratio=30.0, seed=0)
    c = 30 / items[1:].norm(dim=1).mean()
    torch.testing.assert_close(item_map @ item_map.T, torch.eye(4) * c**2, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(user_map @ item_map, (user_map @ item_map).T, atol=1e-3, rtol=1e-5)


def test_models_of_one_seed_share_their_maps_whatever_their_depth(make_recommender):
    shallow, deep, other = (make_recommender(layers, seed=layers) for layers in (1, 3, 3))
    for model, seed in ((shallow, 5), (deep, 5), (other, 6)):
        with torch.no_grad():
            plain_backbone(model.backbone).embed_tokens.weight.copy_(plain_backbone(deep.backbone).embed_tokens.weight)
        model.item_embeddings.copy_(deep.item_embeddings)
        start_passing(model, 30.0, seed)
    assert torch.equal(shallow.item_projection.weight, deep.item_projection.weight)
    assert torch.equal(shallow.user_projection.weight, deep.user_projection.weight)
    assert not torch.allclose(other.item_projection.weight, deep.item_projection.weight)


def test_decoders_without_an_rms_norm_are_refused():
    decoder = GPT2Model(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2))
    with pytest.raises(InputError, match="--start passing needs a decoder whose final norm is an RMS norm"):
        final_norm_weight(decoder)
    decoder.norm = nn.LayerNorm(8)
    with pytest.raises(InputError, match="use --start random"):
        final_norm_weight(decoder)


def test_a_student_starts_from_its_teachers_maps_unless_told_otherwise(tiny_teacher, tiny_flags, tmp_path):
    """With a learning rate of nearly nothing they are still there after a step."""
    flags = {"teacher": tiny_teacher, "num_blocks": 2, "learning_rate": 1e-12, "max_steps": 2}
    distill.main(tiny_flags(**flags, output_dir=tmp_path / "student"))
    teacher, student = load_ellmrec(tiny_teacher), load_ellmrec(tmp_path / "student")
    for name in ("item_projection.weight", "item_projection.bias", "user_projection.weight"):
        torch.testing.assert_close(student.state_dict()[name], teacher.state_dict()[name], atol=1e-8, rtol=0)
    assert read_manifest(tmp_path / "student")["config"]["start"] == "teacher"


def test_how_a_model_starts_that_was_told_nothing(tiny_backbone):
    told = lambda start: EllmArguments(base_model=str(tiny_backbone), start=start)
    width = load_backbone_config(str(tiny_backbone)).hidden_size
    assert resolve_start(told("auto")) == resolve_start(told("auto"), 2 * width) == "random"
    assert resolve_start(told("auto"), width) == "teacher" and resolve_start(told("passing"), width) == "passing"


def test_no_teacher_no_teachers_maps(tiny_flags, tmp_path):
    with pytest.raises(InputError, match="--start teacher is for distill.py"):
        finetune.main(tiny_flags(start="teacher", output_dir=tmp_path / "out"))
    with pytest.raises(InputError, match="--start teacher takes the maps of a trained teacher"):
        distill.main([*tiny_flags(start="teacher", output_dir=tmp_path / "out", teacher_layers=4), "--online"])
    with pytest.raises(InputError, match="--user_length is only for --start passing"):
        finetune.main(tiny_flags(user_length=11, output_dir=tmp_path / "out"))
    with pytest.raises(InputError, match="--start_ratio -1.0: must be above 0"):
        finetune.main(tiny_flags(start="passing", start_ratio=-1, output_dir=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
