"""Writes tests/fixtures/models/{mistral,qwen2_window,llama_bias}: tiny decoders with random weights, and what transformers
says of them; and tests/fixtures/peft_decoders: PEFT's adapters on two decoders, and the adapted models' logits. They have what the models in tests/fixtures/models/{llama,qwen2,qwen3,smollm3} lack: windows in all layers and in
some, YaRN and linear scaling, and biases in all maps.

Run with transformers 5.24 and PEFT 0.21: python tests/interop/decoder_cases.py
"""

import json
import shutil
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM

SIZES = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=64, initializer_range=0.2, bos_token_id=1, eos_token_id=2, pad_token_id=0,
             attn_implementation="eager")
CASES = {
    "mistral": (MistralForCausalLM, MistralConfig(**SIZES, head_dim=12, sliding_window=5, tie_word_embeddings=False,
                                                  rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0})),
    "qwen2_window": (Qwen2ForCausalLM, Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=4, max_window_layers=1,
                                                   tie_word_embeddings=True,
                                                   rope_parameters={"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
                                                                    "original_max_position_embeddings": 16})),
    "llama_bias": (LlamaForCausalLM, LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True, tie_word_embeddings=True,
                                                 rope_parameters={"rope_type": "default", "rope_theta": 10000.0})),
}
PROMPT, NEW = 6, 24
ADAPTERS = {
    "default": dict(r=4, lora_alpha=8),
    "all_linear": dict(r=2, lora_alpha=4, target_modules="all-linear", use_rslora=True, rank_pattern={"down_proj": 3}),
}


def write_adapters(models, out):
    for name in ["qwen3", "mistral"]:
        for seed, (case, settings) in enumerate(ADAPTERS.items()):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_pretrained(models / name, attn_implementation="eager", dtype=torch.float32)
            adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
            for key, parameter in adapted.named_parameters():
                if "lora_B" in key:
                    parameter.data = 0.3 * torch.randn_like(parameter)
            folder = out / name / case
            shutil.rmtree(folder, ignore_errors=True)
            adapted.save_pretrained(folder)
            (folder / "README.md").unlink(missing_ok=True)
            # No path of the machine that wrote it.
            config = json.loads((folder / "adapter_config.json").read_text())
            config["base_model_name_or_path"] = name
            (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
            ids = torch.arange(3, 15)[None] % model.config.vocab_size
            with torch.no_grad():
                logits = adapted.double()(ids).logits.float()
            save_file({"input_ids": ids, "logits": logits}, folder / "expected.safetensors")
            print(name, case)


def main():
    models = Path(__file__).parent.parent / "fixtures" / "models"
    for seed, (name, (kind, config)) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        model = kind(config).eval()
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.data += 0.3 * torch.randn_like(parameter)
        model = model.double()
        ids = torch.randint(3, config.vocab_size, (3, 14))
        mask = (torch.arange(14) < torch.tensor([14, 9, 3])[:, None]).long()
        ids = ids * mask
        with torch.no_grad():
            out = model(ids, attention_mask=mask, output_hidden_states=True)
            logits = out.logits.log_softmax(-1)
            counts = mask[:, 1:].bool()
            loss = -logits[:, :-1].gather(-1, ids[:, 1:, None])[..., 0][counts].mean()
            prompt = ids[:1, :PROMPT].clone()
            greedy = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=NEW, do_sample=False)
        expected = {f"hidden_{i}": state for i, state in enumerate(out.hidden_states)}
        expected |= {"logits": out.logits, "loss": loss[None]}
        expected = {key: value.float().contiguous() for key, value in expected.items()}
        expected |= {"input_ids": ids, "attention_mask": mask, "prompt": prompt, "greedy": greedy}
        folder = models / name
        shutil.rmtree(folder, ignore_errors=True)
        with tempfile.TemporaryDirectory() as written:
            # In parts, as larger models are.
            model.float().save_pretrained(written, max_shard_size="30KB" if name == "mistral" else "5GB")
            shutil.copytree(written, folder)
        save_file(expected, folder / "expected.safetensors")
        print(name, json.dumps({"loss": loss.item(), "greedy": greedy[0, PROMPT:].tolist()}))
    write_adapters(models, models.parent / "peft_decoders")


main()
