"""Writes a Qwen3 with random weights as a GGUF file, to measure what training on one takes: the time and memory of a step
depend on the sizes and types alone.

python tests/interop/random_gguf.py qwen3-1.7b Q4_K random.gguf
mtlora bench step --model random.gguf --base-dtype packed --method lora --batch 1 --seq 2048 --gradient-checkpointing

Linear weights are in the type that is named; the token embedding is in Q8_0, and norms are 32-bit floats. There is no tokenizer. It
needs no packages.
"""

import math
import random
import struct
import sys

# Hidden width, width of the feed-forward block, layers, heads, key/value heads, width of a head.
SIZES = {
    "qwen3-0.6b": (1024, 3072, 28, 16, 8, 128),
    "qwen3-1.7b": (2048, 6144, 28, 16, 8, 128),
}
VOCABULARY = 151_936
# The standard deviation of the weights, as Qwen3's config.json has it for new ones.
DEVIATION = 0.02
ALIGNMENT = 32


def q4_k():
    """A block's beginning and its number of random bytes. All scales and minima are 32, and the minimum lies so that the mean of
    the 16 values is 0. (`block_q4_K` of ggml: two 16-bit floats, 12 bytes of scales and minima, 128 of values.)"""
    scale = DEVIATION / (32 * 4.61)
    return struct.pack("<ee", scale, 7.5 * scale) + b"\xa0" * 8 + bytes(4), 128


def q4_1():
    scale = DEVIATION / 4.61
    return struct.pack("<ee", scale, -7.5 * scale), 16


def q8_0():
    return struct.pack("<e", DEVIATION / 73.9), 32


# The number in the file, the values of a block, and how one is made.
TYPES = {"Q4_1": (3, 32, q4_1), "Q8_0": (8, 32, q8_0), "Q4_K": (12, 256, q4_k)}
F32 = 0


def text(value):
    value = value.encode()
    return struct.pack("<Q", len(value)) + value


def main(model, kind, path):
    hidden, inner, layers, heads, key_value_heads, width = SIZES[model]
    numbers = {
        "context_length": 40_960,
        "embedding_length": hidden,
        "block_count": layers,
        "feed_forward_length": inner,
        "attention.head_count": heads,
        "attention.head_count_kv": key_value_heads,
        "attention.key_length": width,
        "attention.value_length": width,
    }
    floats = {"rope.freq_base": 1e6, "attention.layer_norm_rms_epsilon": 1e-6}
    fields = [text("general.architecture") + struct.pack("<I", 8) + text("qwen3")]
    fields += [text(f"qwen3.{name}") + struct.pack("<II", 4, value) for name, value in numbers.items()]
    fields.append(text("tokenizer.ggml.eos_token_id") + struct.pack("<II", 4, 151_645))
    fields += [text(f"qwen3.{name}") + struct.pack("<If", 6, value) for name, value in floats.items()]

    tensors = [("token_embd", (VOCABULARY, hidden), "Q8_0"), ("output_norm", (hidden,), None)]
    for layer in range(layers):
        own = [
            ("attn_norm", (hidden,), None),
            ("attn_q", (heads * width, hidden), kind),
            ("attn_k", (key_value_heads * width, hidden), kind),
            ("attn_v", (key_value_heads * width, hidden), kind),
            ("attn_output", (hidden, heads * width), kind),
            ("attn_q_norm", (width,), None),
            ("attn_k_norm", (width,), None),
            ("ffn_norm", (hidden,), None),
            ("ffn_gate", (inner, hidden), kind),
            ("ffn_up", (inner, hidden), kind),
            ("ffn_down", (hidden, inner), kind),
        ]
        tensors += [(f"blk.{layer}.{name}", shape, kind) for name, shape, kind in own]

    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields)) + b"".join(fields)
    start, sizes = 0, []
    for name, shape, kind in tensors:
        count = math.prod(shape)
        if kind is None:
            number, size = F32, 4 * count
        else:
            number, values, block = TYPES[kind]
            beginning, rest = block()
            size = count // values * (len(beginning) + rest)
        header += text(f"{name}.weight") + struct.pack("<I", len(shape))
        header += b"".join(struct.pack("<Q", size) for size in reversed(shape)) + struct.pack("<IQ", number, start)
        sizes.append((kind, count, size))
        start += -(-size // ALIGNMENT) * ALIGNMENT

    source = random.Random(1)
    with open(path, "wb") as out:
        out.write(header + bytes(-len(header) % ALIGNMENT))
        for kind, count, size in sizes:
            if kind is None:
                out.write(struct.pack("<f", 1.0) * count)
            else:
                _, values, block = TYPES[kind]
                beginning, rest = block()
                left = count // values
                while left:
                    now = min(left, 1 << 16)
                    drawn = source.randbytes(now * rest)
                    if kind == "Q8_0":
                        # -128 is not used.
                        drawn = drawn.replace(b"\x80", b"\x00")
                    out.write(b"".join(beginning + drawn[at : at + rest] for at in range(0, len(drawn), rest)))
                    left -= now
            out.write(bytes(-size % ALIGNMENT))


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in SIZES or sys.argv[2] not in TYPES:
        sys.exit(f"usage: random_gguf.py {'|'.join(SIZES)} {'|'.join(TYPES)} FILE")
    main(*sys.argv[1:])
