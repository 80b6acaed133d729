"""Writes tests/fixtures/adalora/two_layers.safetensors: twenty steps of PEFT's AdaLoRA on two linear layers.

    python tests/interop/adalora_case.py

PEFT's `RankAllocator` scores and masks the triplets; its model adds the penalty to the loss. The file has the weights,
the data, the factors at the start and at the end, and after each step the loss and `e` of both layers.
"""

from pathlib import Path
from types import SimpleNamespace

import torch
from peft import AdaLoraConfig, get_peft_model
from safetensors.torch import save_file

OUT = Path(__file__).parent.parent / "fixtures" / "adalora" / "two_layers.safetensors"
STEPS = 20
LAYERS = ["one", "two"]
SETTINGS = dict(init_r=3, target_r=1, tinit=2, tfinal=5, deltaT=2, beta1=0.85, beta2=0.85, orth_reg_weight=0.5)
ALPHA = 4
LEARNING_RATE = 0.05
WEIGHT_DECAY = 0.01


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one = torch.nn.Linear(6, 5)
        self.two = torch.nn.Linear(5, 4)

    def forward(self, x, y):
        found = self.two(torch.tanh(self.one(x)))
        return SimpleNamespace(loss=torch.nn.functional.mse_loss(found, y))


def main():
    torch.manual_seed(3)
    base = Model()
    x, y = torch.randn(8, 6), torch.randn(8, 4)
    tensors = {"x": x, "y": y}
    for name in LAYERS:
        layer = getattr(base, name)
        tensors[f"{name}.weight"] = layer.weight.detach().clone()
        tensors[f"{name}.bias"] = layer.bias.detach().clone()
    config = AdaLoraConfig(target_modules=LAYERS, lora_alpha=ALPHA, total_step=STEPS, **SETTINGS)
    model = get_peft_model(base, config)
    factors = {
        f"{name}.{factor}": getattr(getattr(base, name), f"lora_{factor.upper()}")["default"]
        for name in LAYERS
        for factor in "abe"
    }
    tensors |= {f"start.{name}": value.detach().clone() for name, value in factors.items()}
    optimizer = torch.optim.AdamW(factors.values(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    losses, values = [], {name: [] for name in LAYERS}
    for step in range(1, STEPS + 1):
        # The bare PeftModel's own forward pass leaves the penalty out.
        loss = model.base_model(x, y).loss
        loss.backward()
        optimizer.step()
        model.base_model.update_and_allocate(step)
        optimizer.zero_grad()
        losses.append(loss.item())
        for name in LAYERS:
            values[name].append(factors[f"{name}.e"].detach().view(-1).clone())
    tensors["losses"] = torch.tensor(losses)
    tensors |= {f"{name}.e": torch.stack(rows) for name, rows in values.items()}
    tensors |= {f"end.{name}": value.detach().clone() for name, value in factors.items()}
    metadata = SETTINGS | dict(alpha=ALPHA, steps=STEPS, learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in tensors.items()}, OUT, {k: str(v) for k, v in metadata.items()})
    for name, rows in values.items():
        print(name, *((row != 0).int().tolist() for row in rows))
    print(losses[0], losses[-1])


if __name__ == "__main__":
    main()
