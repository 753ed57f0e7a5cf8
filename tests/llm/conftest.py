"""A tiny LLaMA as a GGUF file, written with the gguf package as llama.cpp lays it out."""

from pathlib import Path

import gguf
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from slmrec.llm.prompt import AFTER_ITEMS, BEFORE_ITEMS

LAYERS, WIDTH, HEADS, KV_HEADS, MLP = 2, 32, 4, 2, 64
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
SPACE, NEWLINE = "\u0120", "\u010a"  # how byte-level BPE writes them


def tiny_llama(vocabulary):
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "intermediate_size": MLP, "num_hidden_layers": LAYERS, "vocab_size": vocabulary}
    heads = {"num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS}
    config = LlamaConfig(**sizes, **heads, rms_norm_eps=1e-5, tie_word_embeddings=True, initializer_range=0.2)
    return LlamaForCausalLM(config).eval()


def interleaved(weight, heads):
    """llama.cpp rotates neighbouring pairs where transformers rotates the two halves of a head; rows are reordered for that."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def gguf_tensors(model):
    """GGUF name -> float32 array, linear weights after a trip through Q8_0; `model` gets the same values."""
    heads = {"attn_q": HEADS, "attn_k": KV_HEADS}
    for name, parameter in model.model.named_parameters():
        layer = name.split(".")[1] if name.startswith("layers.") else None
        if layer is None:
            yield {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}[name], parameter, False
            continue
        short = NAMES[name.removeprefix(f"layers.{layer}.").removesuffix(".weight")]
        if parameter.dim() == 1:
            yield f"blk.{layer}.{short}.weight", parameter, False
            continue
        rounded = gguf.quants.dequantize(
            gguf.quants.quantize(parameter.detach().numpy(), gguf.GGMLQuantizationType.Q8_0), gguf.GGMLQuantizationType.Q8_0
        )
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(rounded))
        weight = interleaved(rounded, heads[short]) if short in heads else rounded
        yield f"blk.{layer}.{short}.weight", torch.from_numpy(weight), True


def write_gguf(path: Path, leave_out: str = "") -> LlamaForCausalLM:
    """Write the file, without the tensors whose name holds `leave_out`; returns the model with the weights that it holds."""
    text = (BEFORE_ITEMS + AFTER_ITEMS).replace(" ", SPACE).replace("\n", NEWLINE)
    tokens = ["<unk>", "<s>", "</s>", *sorted(set(text)), f"{SPACE}t", "he"]
    model = tiny_llama(len(tokens))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_merges([f"{SPACE} t", "h e"])
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    for name, weight, quantise in gguf_tensors(model):
        if leave_out and leave_out in name:
            continue
        array, kind = weight.detach().numpy(), gguf.GGMLQuantizationType.Q8_0
        if quantise:
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory):
    """A GGUF file and the transformers model with the same weights."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.Q8_0.gguf"
    return path, write_gguf(path)
