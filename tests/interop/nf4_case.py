"""Writes tests/fixtures/nf4: two matrices, and what bitsandbytes makes of them in NF4 with double quantization.

Run with bitsandbytes 0.50 or later (it needs no GPU), torch and safetensors: python tests/interop/nf4_case.py
"""

from pathlib import Path

import torch
from bitsandbytes import functional as F
from safetensors.torch import save_file

OUT = Path(__file__).parent.parent / "fixtures" / "nf4"

torch.manual_seed(1)
# More than 256 blocks; and one whose last block is shorter, with rows that do not begin with a block. Blocks run over a weight's
# values row after row. Its code for the CPU packs either form alike, but unpacks a matrix whose rows are no whole blocks as if each
# row began with a block, unlike its kernels for GPUs; so the weights are flattened first.
weights = {"long": torch.randn(90, 192) * torch.rand(90, 1) * 0.1, "short": torch.randn(7, 96)}
tensors = {"code": F.get_4bit_type("nf4", device="cpu"), "scale_code": F.create_dynamic_map()}
for name, weight in weights.items():
    packed, state = F.quantize_4bit(weight.flatten(), blocksize=64, compress_statistics=True, quant_type="nf4")
    tensors[name] = weight
    tensors[f"{name}_nf4"] = F.dequantize_4bit(packed, state).float().reshape(weight.shape).contiguous()
save_file(tensors, OUT / "bitsandbytes.safetensors")
