"""Writes thirty training steps of PEFT on the tiny RoBERTa of tests/fixtures, for crates/mtlora-train/tests/parity.rs.

    python tests/interop/training_cases.py

`train_loraplus.safetensors`: LoRA with the optimizer that `peft.optimizers.create_loraplus_optimizer` makes.
`train_dora.safetensors`: DoRA (`use_dora`) with AdamW, whose weight decay is on all but biases.
`train_bitfit.safetensors`: no adapter; all biases and the classifier train, as in BitFit.

With an adapter, query and value are adapted, and the classifier trains too. All is computed in 64-bit floats and written in 32, as the
other recordings in that folder are: `init.*` and `final.*` are the trained tensors, `loss` and `lr` have a value for each
step, and the settings are in the metadata. The batches are those of `train_shim.safetensors`.
"""

from pathlib import Path

import torch
from peft import LoraConfig, TaskType, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, get_linear_schedule_with_warmup

FOLDER = Path(__file__).parent.parent / "fixtures" / "models" / "roberta"
STEPS, WARMUP = 30, 3
RANK, ALPHA = 4, 8
WEIGHT_DECAY = 0.1
FACTORS = {"lora_A": "xtuning_A", "lora_B": "xtuning_B", "lora_magnitude_vector": "lora_magnitude_vector"}


def recorded(name):
    """The name of a trained tensor in the file."""
    name = name.removeprefix("base_model.model.").replace(".modules_to_save.default", "")
    for theirs, ours in FACTORS.items():
        name = name.replace(f"{theirs}.default.weight", ours)
    return name


def trained(model):
    return {recorded(name): value for name, value in model.named_parameters() if value.requires_grad}


def snapshot(model, when):
    return {f"{when}.{name}": value.detach().float().clone() for name, value in trained(model).items()}


def record(case, config, lr, optimizer_of, metadata):
    torch.manual_seed(5)
    model = AutoModelForSequenceClassification.from_pretrained(FOLDER, num_labels=3).double()
    if config is None:
        for name, value in model.named_parameters():
            value.requires_grad = name.endswith("bias") or name.startswith("classifier.")
        model.eval()
    else:
        model = get_peft_model(model, config).eval()
    for value in trained(model).values():
        # The start must be the same in 32-bit floats.
        value.data = value.data.float().double()
    batches = load_file(FOLDER / "train_shim.safetensors")
    batches = {name: batches[name] for name in ("input_ids", "attention_mask", "labels")}
    tensors = dict(batches) | snapshot(model, "init")
    optimizer = optimizer_of(model)
    schedule = get_linear_schedule_with_warmup(optimizer, WARMUP, STEPS)
    losses, rates = [], []
    for step in range(STEPS):
        batch = {name: value[step] for name, value in batches.items()}
        loss = model(**batch).loss
        loss.backward()
        losses.append(loss.item())
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    tensors |= snapshot(model, "final")
    tensors |= {"loss": torch.tensor(losses).float(), "lr": torch.tensor(rates).float()}
    settings = dict(
        rank=RANK, alpha=ALPHA, lr=lr, weight_decay=WEIGHT_DECAY, warmup_steps=WARMUP, steps=STEPS, label_smoothing=0
    )
    settings = {name: str(value) for name, value in (settings | metadata).items()}
    save_file({k: v.contiguous() for k, v in tensors.items()}, FOLDER / f"train_{case}.safetensors", settings)
    print(case, losses[0], losses[-1])


def lora(**more):
    return LoraConfig(
        task_type=TaskType.SEQ_CLS, r=RANK, lora_alpha=ALPHA, target_modules=["query", "value"], lora_dropout=0.0, **more
    )


def adamw(model, lr):
    """AdamW without decay of biases."""
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    biases = [value for name, value in named if name.endswith("bias")]
    others = [value for name, value in named if not name.endswith("bias")]
    groups = [dict(params=others, weight_decay=WEIGHT_DECAY), dict(params=biases, weight_decay=0.0)]
    return torch.optim.AdamW(groups, lr=lr, eps=1e-8)


def main():
    lr, ratio = 2e-3, 8.0
    record(
        "loraplus",
        lora(),
        lr,
        lambda model: create_loraplus_optimizer(
            model,
            torch.optim.AdamW,
            lr=lr,
            loraplus_lr_ratio=ratio,
            loraplus_weight_decay=WEIGHT_DECAY,
            eps=1e-8,
        ),
        dict(loraplus_lr_ratio=ratio),
    )
    record("dora", lora(use_dora=True), 5e-3, lambda model: adamw(model, 5e-3), {})
    record("bitfit", None, 5e-3, lambda model: adamw(model, 5e-3), {})


if __name__ == "__main__":
    main()
