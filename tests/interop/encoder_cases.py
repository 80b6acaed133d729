"""Writes what transformers and PEFT say of tiny encoders with random weights, for the Rust tests:

- tests/fixtures/models/{deberta_v2,deberta_c2p,xlm_roberta,camembert,distilbert}: models, hidden states, logits and losses. The first two have
  what tests/fixtures/models/deberta_v3 lacks;
- tests/fixtures/models/deberta_v3/train_lora.safetensors: thirty training steps of PEFT, as in training_cases.py;
- tests/fixtures/peft_encoders: PEFT's adapters on three of the models, and the adapted models' logits;
- tests/fixtures/unigram_tokenizers.json: token ids of Unigram tokenizers.

Run with transformers 5.24 and PEFT 0.21: python tests/interop/encoder_cases.py
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    CamembertConfig,
    DebertaV2Config,
    DistilBertConfig,
    XLMRobertaConfig,
    get_linear_schedule_with_warmup,
)

FIXTURES = Path(__file__).parent.parent / "fixtures"
MODELS = FIXTURES / "models"
SIZES = dict(vocab_size=120, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             max_position_embeddings=64, initializer_range=0.2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=3)
LENGTH = 24
CASES = {
    # Projections of their own, no buckets, absolute positions, token types, narrow embeddings, no norm.
    "deberta_v2": DebertaV2Config(**SIZES, relative_attention=True, max_relative_positions=12, position_buckets=-1, pos_att_type="p2c|c2p",
                                  share_att_key=False, norm_rel_ebd="none", position_biased_input=True, type_vocab_size=2,
                                  embedding_size=20, pooler_hidden_act="relu"),
    # One of the two products, and an odd number of buckets.
    "deberta_c2p": DebertaV2Config(**SIZES, relative_attention=True, max_relative_positions=40, position_buckets=7, pos_att_type=["c2p"],
                                   share_att_key=True, norm_rel_ebd="layer_norm", position_biased_input=False, type_vocab_size=0),
    "xlm_roberta": XLMRobertaConfig(**SIZES | dict(max_position_embeddings=66), pad_token_id=1, type_vocab_size=1, layer_norm_eps=1e-5),
    "camembert": CamembertConfig(**SIZES | dict(max_position_embeddings=66), pad_token_id=1, type_vocab_size=1, layer_norm_eps=1e-5),
    "distilbert": DistilBertConfig(vocab_size=120, dim=32, hidden_dim=48, n_layers=2, n_heads=4, max_position_embeddings=64, initializer_range=0.2,
                                   dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0, num_labels=3),
}


def inputs(config, seed):
    """Padded texts; some have second parts where the model tells them apart."""
    torch.manual_seed(seed)
    ids = torch.randint(5, config.vocab_size, (5, LENGTH))
    mask = (torch.arange(LENGTH) < torch.tensor([LENGTH, 13, 13, 2, 1])[:, None]).long()
    ids = torch.where(mask == 1, ids, config.pad_token_id)
    types = (torch.arange(LENGTH) >= 7).long()[None].expand(5, -1) * mask
    return ids, mask, types.contiguous() if getattr(config, "type_vocab_size", 0) > 1 else None


def write_models():
    for seed, (name, config) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.data += 0.3 * torch.randn_like(parameter)
        ids, mask, types = inputs(model.config, seed)
        labels = torch.tensor([0, 2, 1, 1, 0])
        given = dict(input_ids=ids, attention_mask=mask) | ({} if types is None else dict(token_type_ids=types))
        folder = MODELS / name
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        model = model.double()
        with torch.no_grad():
            out = model(**given, labels=labels, output_hidden_states=True)
        expected = {f"hidden_{i}": state for i, state in enumerate(out.hidden_states)}
        expected |= {"logits": out.logits, "loss": out.loss[None]}
        expected = {key: value.float().contiguous() for key, value in expected.items()}
        save_file(expected | given | {"labels": labels}, folder / "expected.safetensors")
        print(name, out.loss.item())


ADAPTERS = {
    "default": dict(r=4, lora_alpha=8),
    "all_linear": dict(r=2, lora_alpha=4, target_modules="all-linear", use_rslora=True),
}
MORE = {
    "deberta_v3": {
        "linear_maps": dict(r=3, target_modules=["query_proj", "key_proj", "value_proj", "attention.output.dense", "intermediate.dense", "output.dense"],
                            modules_to_save=["pooler"]),
    },
    "deberta_v2": {"positions": dict(r=2, target_modules=["pos_key_proj", "pos_query_proj", "word_embeddings"])},
    # PEFT knows no targets for it. What it saves of `classifier` includes `pre_classifier`, whose name ends alike, so that all-linear fails.
    "distilbert": {"default": dict(r=4, lora_alpha=8, target_modules=["q_lin", "v_lin"]),
                   "all_linear": dict(r=3, target_modules=["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"])},
}


def write_adapters():
    out = FIXTURES / "peft_encoders"
    shutil.rmtree(out, ignore_errors=True)
    for name, more in MORE.items():
        config = json.loads((MODELS / name / "config.json").read_text())
        for seed, (case, settings) in enumerate((ADAPTERS | more).items()):
            torch.manual_seed(seed)
            model = AutoModelForSequenceClassification.from_pretrained(MODELS / name, dtype=torch.float32)
            adapted = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", **settings)).eval()
            for key, parameter in adapted.named_parameters():
                if "lora_" in key or "modules_to_save" in key and parameter.requires_grad:
                    parameter.data = 0.3 * torch.randn_like(parameter)
            folder = out / name / case
            adapted.save_pretrained(folder)
            (folder / "README.md").unlink(missing_ok=True)
            # No path of the machine that wrote it.
            path = folder / "adapter_config.json"
            written = json.loads(path.read_text()) | {"base_model_name_or_path": name}
            path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")
            ids = torch.arange(5, 22)[None] % config["vocab_size"]
            with torch.no_grad():
                logits = adapted.double()(ids).logits.float()
            save_file({"input_ids": ids, "logits": logits}, folder / "expected.safetensors")
            print(name, case)


STEPS, WARMUP, BATCH = 30, 3, 6


def write_training():
    """Thirty steps of LoRA on all linear maps of a layer; pooler and classifier train, too."""
    torch.manual_seed(5)
    folder = MODELS / "deberta_v3"
    model = AutoModelForSequenceClassification.from_pretrained(folder).double()
    targets = MORE["deberta_v3"]["linear_maps"]["target_modules"]
    rank, alpha, lr, decay = 4, 8, 5e-3, 0.1
    config = LoraConfig(task_type="SEQ_CLS", r=rank, lora_alpha=alpha, target_modules=targets, lora_dropout=0.0, modules_to_save=["pooler"])
    model = get_peft_model(model, config).eval()

    def trained():
        for name, value in model.named_parameters():
            if value.requires_grad:
                name = name.removeprefix("base_model.model.").replace(".modules_to_save.default", "")
                yield name.replace("lora_A.default.weight", "xtuning_A").replace("lora_B.default.weight", "xtuning_B"), value

    for _, value in trained():
        # The start must be the same in 32-bit floats.
        value.data = value.data.float().double()
    length = 20
    ids = torch.randint(5, 120, (STEPS, BATCH, length))
    lengths = torch.randint(2, length + 1, (STEPS, BATCH, 1))
    mask = (torch.arange(length) < lengths).long()
    ids = ids * mask
    labels = torch.randint(0, 2, (STEPS, BATCH))
    tensors = dict(input_ids=ids, attention_mask=mask, labels=labels)
    tensors |= {f"init.{name}": value.detach().float().clone() for name, value in trained()}
    named = list(trained())
    groups = [dict(params=[v for n, v in named if not n.endswith("bias")], weight_decay=decay),
              dict(params=[v for n, v in named if n.endswith("bias")], weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=lr, eps=1e-8)
    schedule = get_linear_schedule_with_warmup(optimizer, WARMUP, STEPS)
    losses, rates = [], []
    for step in range(STEPS):
        loss = model(input_ids=ids[step], attention_mask=mask[step], labels=labels[step]).loss
        loss.backward()
        losses.append(loss.item())
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    tensors |= {f"final.{name}": value.detach().float().clone() for name, value in trained()}
    tensors |= {"loss": torch.tensor(losses).float(), "lr": torch.tensor(rates).float()}
    settings = dict(rank=rank, alpha=alpha, lr=lr, weight_decay=decay, warmup_steps=WARMUP, steps=STEPS, label_smoothing=0, targets=",".join(targets))
    settings = {name: str(value) for name, value in settings.items()}
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "train_lora.safetensors", settings)
    print("training", losses[0], losses[-1])


# ---- Tokenizers

PIECES = ["▁the", "▁cat", "▁sat", "s", "▁mat", "▁", "a", "b", "c", "t", "h", "e", "▁The", "▁Cat", "é", "▁caf", "中", "文", "▁中", ".", ",", "▁.", "▁new", "▁token", "o", "n",
          "w", "k", "[", "]", "<", ">", "fi", "▁un", "able", "1", "2", "▁12", "T", "C", "!", "▁x"]
ROWS = [["The cats sat, the café.", None], ["  the   cat\n\tsat  ", None], ["the cat", "the mats, a cat"], ["", None], ["", "cat"], ["中文 the", None],
        ["☃ cat ☃☃", None], ["[MASK] the <mask> cat <new>", None], ["cafe\u0301 unable", None], ["\ufb01t the\u00a0cat 12", None], ["THE Cat", None],
        ["a!b the.cat", None], ["<s> cat </s>[SEP] [CLS]", None], ["the cat sat the mat the cat sat", "the mats the cat the mats a cat b"], ["<s>NOTUSED cat <unk>", None]]


def special(id, content, **more):
    return dict(id=id, content=content, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True) | more


def tokenizer_json(kind):
    start = {"deberta": ["[PAD]", "[CLS]", "[SEP]", "[UNK]"], "xlm": ["<s>", "<pad>", "</s>", "<unk>"],
             "camembert": ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>"]}[kind]
    mask = "[MASK]" if kind == "deberta" else "<mask>"
    pieces = [[text, 0.0] for text in start] + [[text, -2.0 - 0.1 * number] for number, text in enumerate(PIECES)]
    pieces.append([mask, 0.0])
    added = [special(number, text) for number, (text, _) in enumerate(pieces[: len(start)])]
    added.append(special(len(pieces) - 1, mask, lstrip=kind != "deberta"))
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    first, last = (start[1], start[2]) if kind == "deberta" else ("<s>", "</s>")
    token = lambda text, kind: {"SpecialToken": {"id": text, "type_id": kind}}
    text = lambda name, kind: {"Sequence": {"id": name, "type_id": kind}}
    second = 1 if kind == "deberta" else 0
    pair = [token(first, 0), text("A", 0), token(last, 0)] + ([] if second else [token(last, 0)]) + [text("B", second), token(last, second)]
    ids = {text: number for number, (text, _) in enumerate(pieces)}
    post = {"type": "TemplateProcessing", "single": [token(first, 0), text("A", 0), token(last, 0)], "pair": pair,
            "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in (first, last)}}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "NFKC"}]},
            "pre_tokenizer": space, "post_processor": post, "decoder": space,
            "model": {"type": "Unigram", "unk_id": start.index("[UNK]" if kind == "deberta" else "<unk>"), "vocab": pieces, "byte_fallback": False}}


CONFIGS = {"deberta": "deberta-v2", "xlm": "xlm-roberta", "camembert": "camembert"}
CLASSES = {"deberta": "DebertaV2Tokenizer", "xlm": "XLMRobertaTokenizer", "camembert": "CamembertTokenizer"}


def write_tokenizers():
    files = {kind: tokenizer_json(kind) for kind in CONFIGS}
    cases = []
    for kind in CONFIGS:
        own, fast = CLASSES[kind], CLASSES[kind] + "Fast"
        settings = {
            "no tokenizer_config": None,
            "own class": dict(tokenizer_class=own),
            "fast class": dict(tokenizer_class=fast),
            "tokenizer.json as it is": dict(tokenizer_class="PreTrainedTokenizerFast"),
            "no prefix space": dict(tokenizer_class=own, add_prefix_space=False),
            "lower case": dict(tokenizer_class=own, do_lower_case=True),
            "punctuation": dict(tokenizer_class=own, split_by_punct=True),
            "unk_id": dict(tokenizer_class=own, unk_id=5, unk_token="[unknown]" if kind == "deberta" else "<unk>"),
            "extra special tokens": dict(tokenizer_class=own, extra_special_tokens=["▁cat", "sat"]),
            "additional special tokens": dict(tokenizer_class=own, additional_special_tokens=["sat"]),
            "side left": dict(tokenizer_class=own, truncation_side="left"),
            "token types": dict(tokenizer_class=own, model_input_names=["input_ids", "token_type_ids", "attention_mask"]),
            "no token types": dict(tokenizer_class=own, model_input_names=["input_ids", "attention_mask"]),
        }
        for name, config in settings.items():
            cases.append(dict(name=f"{kind}: {name}", kind=kind, tokenizer_config=config, max_length=12 if name == "side left" else None))
    for case in cases:
        folder = Path(tempfile.mkdtemp())
        (folder / "tokenizer.json").write_text(json.dumps(files[case["kind"]]))
        (folder / "config.json").write_text(json.dumps(dict(model_type=CONFIGS[case["kind"]])))
        if case["tokenizer_config"] is not None:
            (folder / "tokenizer_config.json").write_text(json.dumps(case["tokenizer_config"]))
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
        rows = [tokenizer(text, pair, truncation=case["max_length"] is not None, max_length=case["max_length"]) for text, pair in ROWS]
        ids = [row["input_ids"] for row in rows]
        types = [row.get("token_type_ids") or [0] * len(row["input_ids"]) for row in rows]
        case["expected"] = dict(tokenizer=type(tokenizer).__name__, ids=ids, type_ids=types)
        shutil.rmtree(folder)
    lines = [json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases]
    head = json.dumps(dict(rows=ROWS, files=files), ensure_ascii=False)
    (FIXTURES / "unigram_tokenizers.json").write_text(head[:-1] + ', "cases": [\n' + ",\n".join(lines) + "\n]}\n")
    print(len(cases), "tokenizers")


if __name__ == "__main__":
    write_models()
    write_adapters()
    write_training()
    write_tokenizers()
