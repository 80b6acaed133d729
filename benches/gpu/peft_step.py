#!/usr/bin/env python3
"""Times a training step of PyTorch, transformers and PEFT on a card. `compare` runs it; prints one JSON object.

    python benches/gpu/peft_step.py --model roberta-base --batch 32 --seq 128 --dtype bf16 --tf32
"""

import argparse
import json
import statistics
import time

import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model


def roberta_base():
    """RoBERTa-base with a classification head; rank 8 on query and value."""
    config = transformers.RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1)
    model = transformers.RobertaForSequenceClassification(config)
    lora = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, lora_dropout=0.0, target_modules=["query", "value"])
    return get_peft_model(model, lora)


def gpt2_medium():
    """GPT-2 medium; rank 4 on the merged queries, keys and values."""
    config = transformers.GPT2Config(n_embd=1024, n_layer=24, n_head=16)
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=32, lora_dropout=0.1, target_modules=["c_attn"],
                      fan_in_fan_out=True)
    return get_peft_model(transformers.GPT2LMHeadModel(config), lora)


MODELS = {"roberta-base": roberta_base, "gpt2-medium": gpt2_medium}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", choices=list(MODELS), required=True)
    add("--batch", type=int, required=True, help="sequences")
    add("--seq", type=int, required=True, help="tokens of a sequence")
    add("--dtype", choices=["f32", "bf16"], default="f32", help="bf16: products under autocast [%(default)s]")
    add("--tf32", action="store_true", help="let products of 32-bit floats use TF32")
    add("--device", default="cuda", help="PyTorch's name of the device [%(default)s]")
    add("--steps", type=int, default=10, help="timed steps, after three that are not timed [%(default)s]")
    args = parser.parse_args()
    torch.manual_seed(0)
    transformers.logging.set_verbosity_error()
    torch.backends.cuda.matmul.allow_tf32 = args.tf32
    torch.backends.cudnn.allow_tf32 = args.tf32
    device = torch.device(args.device)
    on_card = device.type == "cuda"
    ids = torch.randint(5, 50000, (args.batch, args.seq), device=device)
    if args.model == "roberta-base":
        labels = torch.randint(0, 2, (args.batch,), device=device)
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    else:
        batch = {"input_ids": ids, "labels": ids}
    model = MODELS[args.model]().to(device).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=4e-4, weight_decay=0.1)

    def wait():
        if on_card:
            torch.cuda.synchronize(device)

    def step():
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=args.dtype == "bf16"):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    times = []
    for number in range(3 + args.steps):
        wait()
        start = time.perf_counter()
        step()
        wait()
        if number >= 3:
            times.append(time.perf_counter() - start)
    print(json.dumps({
        "median_step_s": statistics.median(times),
        "peak_device_mb": torch.cuda.max_memory_allocated(device) / 2**20 if on_card else None,
        "device": torch.cuda.get_device_name(device) if on_card else "cpu",
        "peer": f"peft {peft.__version__}, torch {torch.__version__}, transformers {transformers.__version__}",
    }))


if __name__ == "__main__":
    main()
