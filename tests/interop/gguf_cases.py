"""Writes tests/fixtures/gguf: GGUF files as llama.cpp's converter writes them, of models in tests/fixtures/models, and one
with a tensor of each type and what gguf-py unpacks it to.

Run with gguf 0.17 or later, numpy and safetensors: python tests/interop/gguf_cases.py
"""

import json
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, TokenType, quants
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).parent.parent / "fixtures"
OUT = ROOT / "gguf"
NAMES = {
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}


def name_of(name):
    if name in NAMES:
        return NAMES[name]
    layer, rest = name.removeprefix("model.layers.").split(".", 1)
    module, end = rest.rsplit(".", 1)
    return f"blk.{layer}.{NAMES[module]}.{end}"


def permuted(weight, heads):
    """As llama.cpp's converter turns the rows of query and key of a Llama."""
    shape = weight.shape
    return weight.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def write_model(model, out):
    config = json.loads((ROOT / "models" / model / "config.json").read_text())
    arch = config["model_type"]
    heads, shared = config["num_attention_heads"], config["num_key_value_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    writer = GGUFWriter(out, arch)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(shared)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    # The first tokens are control tokens, then letters, a token of two, one that the user defined; the rest is not used.
    words = ["<unk>", "<s>", "</s>"] + [chr(ord("a") + i) for i in range(26)] + ["ab", "<user>"]
    kinds = [TokenType.CONTROL] * 3 + [TokenType.NORMAL] * 27 + [TokenType.USER_DEFINED]
    unused = config["vocab_size"] - len(words)
    words += [f"[PAD{i}]" for i in range(unused)]
    kinds += [TokenType.UNUSED] * unused
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2" if arch == "qwen3" else "gpt-2")
    writer.add_token_list(words)
    writer.add_token_types(kinds)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_eot_token_id(0)
    writer.add_chat_template("{{ messages[0].content }}")
    for name, value in load_file(ROOT / "models" / model / "model.safetensors").items():
        if arch == "llama" and "q_proj" in name:
            value = permuted(value, heads)
        if arch == "llama" and "k_proj" in name:
            value = permuted(value, shared)
        writer.add_tensor(name_of(name), np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_types():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(3, 512)).astype(np.float32)
    expected = {}
    writer = GGUFWriter(OUT / "types.gguf", "none")
    for kind in [Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1]:
        packed = values if kind == Type.F32 else quants.quantize(values, kind)
        expected[kind.name] = quants.dequantize(packed, kind)
        writer.add_tensor(kind.name, packed, raw_dtype=kind)
    for kind, size, scales in [(Type.Q4_K, 144, [0, 2]), (Type.Q5_K, 176, [0, 2]), (Type.Q6_K, 210, [208])]:
        # Any bytes are a block, but for its floats.
        packed = rng.integers(0, 256, size=(3, 2, size), dtype=np.uint8)
        for at in scales:
            packed[:, :, at:at + 2] = rng.normal(size=(3, 2, 1)).astype(np.float16).view(np.uint8)
        packed = packed.reshape(3, 2 * size)
        expected[kind.name] = quants.dequantize(packed, kind)
        writer.add_tensor(kind.name, packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file({name: np.ascontiguousarray(value) for name, value in expected.items()}, OUT / "types.safetensors")


OUT.mkdir(exist_ok=True)
write_model("llama_bias", OUT / "llama_bias.gguf")
write_model("qwen3", OUT / "qwen3.gguf")
write_types()
