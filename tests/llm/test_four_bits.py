"""--load_in_4bit: refused where it cannot be; and all of it but the move to the GPU, with bitsandbytes itself on the CPU."""

import importlib.util

import pytest
import torch
from peft import PeftModel

import distill
import evaluate
import finetune
from slmrec.artifacts import read_json, read_manifest
from slmrec.errors import InputError
from slmrec.llm import four_bits
from slmrec.llm.arguments import EllmArguments
from slmrec.llm.backbone import add_lora, count_parameters, load_backbone, plain_backbone, share_frozen
from slmrec.llm.four_bits import require_four_bits
from slmrec.llm.model_directory import load_ellmrec, restore_weights
from slmrec.pipeline.steps import Step, check_base_models, check_flags
from slmrec.training import llm_stage

WANTED = {"train_strategy": "lora", "load_in_4bit": "true"}


def test_no_gpu_or_no_library_is_one_line_and_nothing_is_written(tiny_flags, tiny_teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(llm_stage, "local_base_model", lambda *_: pytest.fail("a base model was made"))
    flags = tiny_flags(**WANTED, output_dir=tmp_path / "out", device=None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for main, more in ((finetune.main, []), (distill.main, ["--teacher", str(tiny_teacher)])):
        with pytest.raises(InputError, match="^--load_in_4bit: weights in 4 bits need a CUDA device, which is not there$"):
            main([*flags, *more])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(InputError, match="need a CUDA device, which --device cpu excludes$"):
        finetune.main([*flags, "--device", "cpu"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="need bitsandbytes: pip install -e"):
        finetune.main(flags)
    assert not list(tmp_path.iterdir())


def test_the_pipeline_refuses_it_before_its_first_stage(tiny_flags, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    steps = [Step("teacher", ("python", "finetune.py", *tiny_flags(**WANTED, output_dir=tmp_path / "out", device=None)))]
    with pytest.raises(InputError, match="^teacher: --load_in_4bit: weights in 4 bits need a CUDA device"):
        check_base_models(steps, check_flags(steps))


def test_what_is_trained_whole_is_not_in_4_bits(tiny_backbone):
    with pytest.raises(InputError, match="weights in 4 bits are not trained; --train_strategy lora trains adapters"):
        EllmArguments(str(tiny_backbone), train_strategy="full", load_in_4bit=True)
    with pytest.raises(InputError, match="is trained whole; --train_strategy lora trains adapters"):
        EllmArguments(str(tiny_backbone), load_in_4bit=True).refuse_adapters()  # auto, and a random checkpoint


@pytest.fixture
def on_the_cpu(monkeypatch):
    """bitsandbytes computes with 4-bit weights on CPUs too, slowly: good for a look at everything but the move to a GPU."""
    modules = pytest.importorskip("bitsandbytes.nn.modules")
    monkeypatch.setattr(modules, "has_avx512bf16", lambda: False)  # products in bf16 that need rows of 64 numbers
    for module in (four_bits, llm_stage):
        monkeypatch.setattr(module, "require_four_bits", lambda *_: None)


@torch.no_grad()
def test_linear_layers_are_near_the_base_models_and_both_encodings_agree(on_the_cpu, tiny_backbone, tiny_teacher, make_batch):
    plain, small = (load_backbone(str(tiny_backbone), 2, four_bits=four) for four in (False, True))
    assert count_parameters(small)["parameters"] == count_parameters(plain)["parameters"]
    gate = small.layers[0].mlp.gate_proj.weight
    assert gate.dtype == torch.uint8 and 2 * gate.numel() == plain.layers[0].mlp.gate_proj.weight.numel()
    assert small.layers[0].input_layernorm.weight.dtype == small.embed_tokens.weight.dtype == torch.float32
    rows = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    ours, theirs = (model(inputs_embeds=rows).last_hidden_state for model in (small, plain))
    assert 0 < (ours - theirs).abs().max() < 0.2 * theirs.abs().max()


def test_train_evaluate_and_distil(on_the_cpu, tiny_flags, tmp_path, make_batch, monkeypatch):
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    finetune.main(tiny_flags(**WANTED, num_layers=4, output_dir=teacher))
    assert read_manifest(teacher)["config"]["load_in_4bit"] is True
    assert read_json(teacher / "recommender.json")["four_bits"] == {"quant_type": "nf4", "dtype": "float32"}
    assert 'bnb_4bit_quant_type="nf4"' in (teacher / "README.md").read_text()

    model, batch = load_ellmrec(teacher).eval(), make_batch([4, 1, 30, 9])
    assert plain_backbone(model.backbone).layers[3].mlp.up_proj.base_layer.weight.dtype == torch.uint8
    with torch.no_grad():
        reference = load_ellmrec(teacher, encoding="reference").eval().encode(batch)
        torch.testing.assert_close(model.encode(batch), reference, atol=1e-5, rtol=0)
        ready = load_ellmrec(teacher).eval()  # its adapters stay what they are
        torch.testing.assert_close(ready.answering().encode(batch), reference, atol=1e-5, rtol=0)
        assert isinstance(ready.backbone, PeftModel)

    evaluate.main(["--model", str(teacher), "--output_dir", str(tmp_path / "ranks"), "--num_candidates", "20", "--device", "cpu"])
    distill.main([*tiny_flags(**WANTED, output_dir=student), "--teacher", str(teacher), "--num_blocks", "2"])
    valid = read_json(student / "metrics.json")["valid"]["sampled"]
    assert valid["MRR"] > 0 and read_manifest(student)["inputs"]["teacher"]["stage"] == "finetune"

    plain = tmp_path / "plain"  # a model with whole base weights does not take the adapters of one without, nor the reverse
    finetune.main(tiny_flags(train_strategy="lora", num_layers=4, max_steps=2, output_dir=plain))
    assert "load_in_4bit" not in read_manifest(plain)["config"]
    for ours, theirs in ((model, plain), (load_ellmrec(plain), teacher)):
        with pytest.raises(InputError, match="its four_bits"):
            restore_weights(ours, theirs)


def test_a_model_in_4_bits_needs_what_it_was_trained_with(on_the_cpu, tiny_flags, tmp_path, monkeypatch):
    import export

    trained = tmp_path / "trained"
    finetune.main(tiny_flags(**WANTED, max_steps=2, output_dir=trained))
    with pytest.raises(InputError, match="its base model is in 4 bits, and adapters cannot be added"):
        export.main(["--model", str(trained), "--output_dir", str(tmp_path / "exported")])
    monkeypatch.setattr(four_bits, "require_four_bits", require_four_bits)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    line = f"^{trained}: its base model was read with --load_in_4bit: weights in 4 bits need a CUDA device, which is not there$"
    with pytest.raises(InputError, match=line):
        evaluate.main(["--model", str(trained), "--output_dir", str(tmp_path / "ranks"), "--device", "cpu"])
    with pytest.raises(InputError, match=line):
        distill.main([*tiny_flags(output_dir=tmp_path / "student"), "--teacher", str(trained), "--num_blocks", "2"])
    assert {path.name for path in tmp_path.iterdir()} == {"trained"}


def test_a_student_in_4_bits_shares_its_teachers_weights(on_the_cpu, tiny_backbone):
    student, teacher = (
        add_lora(load_backbone(str(tiny_backbone), layers, four_bits=True), 4, 4, 0.0, ["up_proj"]) for layers in (2, 4)
    )
    share_frozen(student, teacher)
    ours, theirs = (plain_backbone(model).layers[1].mlp.gate_proj for model in (student, teacher))
    assert ours.weight is theirs.weight
    theirs.weight.quant_state.absmax *= 2  # other weights of the same pattern
    other = add_lora(load_backbone(str(tiny_backbone), 2, four_bits=True), 4, 4, 0.0, ["up_proj"])
    share_frozen(other, teacher)
    assert plain_backbone(other).layers[1].mlp.gate_proj.weight is not theirs.weight
