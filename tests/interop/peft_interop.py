"""mtlora and PEFT read each other's adapters, and compute the same logits.

    tests/interop/run             checks the program against PEFT
    tests/interop/run golden      writes tests/fixtures/peft again, which the Rust tests read

Needs Python with torch, transformers and peft.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
warnings.filterwarnings("ignore")

import torch
from peft import AdaLoraConfig, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertTokenizerFast,
    DebertaV2Config,
    DebertaV2Tokenizer,
    DistilBertConfig,
    GPT2Config,
    RobertaConfig,
)
from transformers.utils import logging

logging.disable_progress_bar()

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "tests/fixtures/models"
GOLDEN = ROOT / "tests/fixtures/peft"
PROGRAM = os.environ.get("MTLORA", str(ROOT / "target/release/mtlora"))
TOLERANCE = 1e-5
LAST = 4
STRUCTURES = ["lora", "shim", "icfm", "ctcm", "dtsm"]
FOLDS = ["a", "b", "balanced"]
PREFIX = "base_model.model."

checks = 0


def check(what, found, wanted):
    """Compares logits, counts the comparison, and exits if they differ."""
    global checks
    error = (found - wanted).abs().max().item()
    if not error < TOLERANCE:
        sys.exit(f"{what}: the logits differ by {error}")
    checks += 1
    print(f"{what}: {error:.1e}")


def mtlora(*arguments, text=None):
    """Runs the program and returns its standard output."""
    done = subprocess.run(
        [PROGRAM, *map(str, arguments)], input=text, capture_output=True, text=True
    )
    if done.returncode != 0:
        sys.exit(f"mtlora {' '.join(map(str, arguments))}: {done.stderr}")
    return done.stdout


def base(folder, labels=None):
    """The model of a folder, as PEFT's users load it."""
    if json.loads((folder / "config.json").read_text())["model_type"] == "gpt2":
        return AutoModelForCausalLM.from_pretrained(folder).eval()
    more = {} if labels is None else {"num_labels": labels}
    return AutoModelForSequenceClassification.from_pretrained(folder, **more).eval()


def labels_of(folder):
    """The number of outputs of an adapter's head, if it has one."""
    tensors = load_file(folder / "adapter_model.safetensors")
    for name in ["classifier.out_proj.weight", "classifier.weight"]:
        if PREFIX + name in tensors:
            return tensors[PREFIX + name].shape[0]
    return None


def with_peft(model, adapter):
    """The base model with an adapter, loaded by PEFT."""
    return PeftModel.from_pretrained(base(model, labels_of(adapter)), adapter).eval()


@torch.no_grad()
def logits(model, inputs):
    return model(**inputs).logits


def kept(name, logits):
    """The logits to compare: of a causal model, those of the last tokens only, which keeps the files small."""
    return (logits[:, -LAST:] if name == "gpt2" else logits).contiguous()


def exact(name, model, inputs):
    """The logits to compare, computed in 64 bits: in 32 bits, PyTorch's own are up to 1.2e-5 from them on some processors."""
    return kept(name, logits(model.double(), inputs)).float()


def fixture_inputs(name):
    expected = load_file(MODELS / name / "expected.safetensors")
    inputs = {"input_ids": expected["input_ids"]}
    if "attention_mask" in expected:
        inputs["attention_mask"] = expected["attention_mask"]
    return inputs


# ---- Adapters that PEFT makes


def randomised(model, seed):
    """Makes every trained value random, so that each of them shows in the logits."""
    torch.manual_seed(seed)
    for name, value in model.named_parameters():
        if "lora_" in name or ("modules_to_save" in name and value.requires_grad):
            value.data = torch.randn_like(value) * 0.3
    return model.eval()


def theirs(name):
    """PEFT's configurations for a model, by the name of the case."""
    if name == "gpt2":
        cases = {
            "lora": dict(r=2, target_modules=["c_attn"], fan_in_fan_out=True),
            "rslora": dict(
                r=3, lora_alpha=7, use_rslora=True, target_modules=["c_attn", "mlp.c_proj"]
            ),
            "patterns": dict(
                r=2,
                lora_alpha=5,
                target_modules=["c_attn", "c_fc"],
                rank_pattern={"h.0.attn.c_attn": 4, "c_fc": 1},
                alpha_pattern={r"^transformer\.h\.1\..*": 3},
                fan_in_fan_out=True,
            ),
            "all_linear": dict(r=1, target_modules="all-linear"),
            "layers": dict(
                r=2, target_modules=["c_attn", "c_proj"], layers_to_transform=[1], layers_pattern="h"
            ),
            "embeddings": dict(r=2, target_modules=["wpe", "c_attn"], fan_in_fan_out=True),
            "adalora": dict(init_r=3, target_modules=["c_attn", "mlp.c_proj"], fan_in_fan_out=True, total_step=10),
            "dora": dict(r=2, use_dora=True, target_modules=["c_attn", "mlp.c_proj"], fan_in_fan_out=True),
        }
        return {key: dict(task_type="CAUSAL_LM", **case) for key, case in cases.items()}
    if name == "deberta":
        cases = {
            "lora": dict(r=2),
            "pooler": dict(r=2, lora_alpha=2, target_modules=["query_proj", "key_proj"], modules_to_save=["pooler"]),
            "rslora": dict(r=3, lora_alpha=7, use_rslora=True, target_modules=["key_proj", "intermediate.dense"]),
            "patterns": dict(
                r=2,
                lora_alpha=5,
                target_modules=r".*\.(query_proj|value_proj|dense)",
                exclude_modules=["pooler.dense"],
                rank_pattern={"layer.0.attention.self.query_proj": 4, r"output\.dense": 1},
            ),
            "adalora": dict(init_r=4, target_r=2, lora_alpha=5, total_step=10),
            "dora": dict(r=2, use_dora=True, target_modules=["query_proj", "output.dense"]),
        }
        return {key: dict(task_type="SEQ_CLS", **case) for key, case in cases.items()}
    if name == "distilbert":
        cases = {
            "lora": dict(r=2, target_modules=["q_lin", "v_lin"]),
            "rslora": dict(r=3, lora_alpha=7, use_rslora=True, target_modules=["k_lin", "lin2"]),
            "dora": dict(r=2, use_dora=True, target_modules=["q_lin", "lin1"]),
        }
        return {key: dict(task_type="SEQ_CLS", **case) for key, case in cases.items()}
    cases = {
        "lora": dict(r=2, target_modules=["query", "value"]),
        "rslora": dict(
            r=3, lora_alpha=7, use_rslora=True, target_modules=["key", "intermediate.dense"]
        ),
        "patterns": dict(
            r=2,
            lora_alpha=5,
            target_modules=r".*\.(query|value|dense)",
            exclude_modules=["pooler.dense"],
            rank_pattern={"layer.0.attention.self.query": 4, r"output\.dense": 1},
            alpha_pattern={rf"^{name}.encoder.layer.1.*value": 3},
        ),
        "all_linear": dict(r=1, target_modules="all-linear"),
        "layers": dict(
            r=2, target_modules=["query", "output.dense"], layers_to_transform=1
        ),
        "embeddings": dict(r=2, target_modules=["word_embeddings", "position_embeddings"]),
        "lookahead": dict(r=2, target_modules=r"^(?!.*layer\.1\.).*(query|value)$"),
        "adalora": dict(init_r=4, target_r=2, lora_alpha=5, target_modules=["query", "value"], total_step=10),
        "dora": dict(r=2, use_dora=True, target_modules=["query", "output.dense"]),
    }
    return {key: dict(task_type="SEQ_CLS", **case) for key, case in cases.items()}


def prune(peft):
    """Prunes an AdaLoRA adapter: of the first module nothing is left, of the last one everything."""
    values = {name: value for name, value in peft.base_model.model.named_parameters() if ".lora_E." in name}
    pattern = {}
    for number, (name, value) in enumerate(values.items()):
        kept = [0 < number and (number == len(values) - 1 or (row + number) % 3 != 0) for row in range(len(value))]
        value.data[~torch.tensor(kept)] = 0
        pattern[name] = kept
    peft.peft_config["default"].rank_pattern = pattern


def make_theirs(model, case, settings, out, seed):
    """Saves an adapter that PEFT makes for a model, and returns the model with it."""
    torch.manual_seed(seed)
    kind = AdaLoraConfig if "init_r" in settings else LoraConfig
    peft = randomised(get_peft_model(base(model), kind(**settings)), seed)
    if kind is AdaLoraConfig:
        prune(peft)
    peft.save_pretrained(out)
    # The file must not have a path of this machine.
    path = out / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = model.name
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (out / "README.md").unlink(missing_ok=True)
    return peft


# ---- MTLoRA adapters in the project's format, written and folded without the project's code


def transform(structure, c, d):
    return {
        "lora": lambda: torch.eye(c.shape[0], dtype=c.dtype),
        "shim": lambda: c,
        "icfm": lambda: c @ c.T,
        "ctcm": lambda: c @ d,
        "dtsm": lambda: c + d,
    }[structure]()


def ours(name):
    """What the project's adapters adapt in a model: the targets, and which of q, k, v."""
    if name == "gpt2":
        return ["c_attn", "c_fc"], [True, False, True]
    return ["query", "value"], None


def make_ours(name, structure, out, seed):
    """Writes an MTLORA adapter for a model, and the same update as plain LoRA; returns the folder of the latter."""
    torch.manual_seed(seed)
    targets, projections = ours(name)
    model = base(MODELS / name)
    rank, alpha = 2, 5
    tensors, folded, ranks, alphas = {}, {}, {}, {}
    for module_name, module in model.named_modules():
        if module_name.split(".")[-1] not in targets:
            continue
        weight = module.weight if name != "gpt2" else module.weight.T
        rows, columns = weight.shape
        fused = projections if module_name.endswith("c_attn") else None
        groups = sum(fused) if fused else 1
        side = groups * rank
        a = torch.randn(side, columns) * 0.3
        b = torch.randn(rows // (len(fused) if fused else 1) * groups, rank) * 0.3
        c, d = torch.randn(side, side) * 0.5, torch.randn(side, side) * 0.5
        key = f"{PREFIX}{module_name}.lora_"
        tensors[f"{key}A.weight"], tensors[f"{key}B.weight"] = a, b
        if structure != "lora":
            tensors[f"{key}C.weight"] = c
        if structure in ["ctcm", "dtsm"]:
            tensors[f"{key}D.weight"] = d
        up = b
        if fused:
            width = rows // len(fused)
            up = torch.zeros(rows, side)
            done = 0
            for group, adapted in enumerate(fused):
                if adapted:
                    block = b[done * width : (done + 1) * width]
                    up[group * width : (group + 1) * width, done * rank : (done + 1) * rank] = block
                    done += 1
        folded[f"{key}A.weight"] = (transform(structure, c.double(), d.double()) @ a.double()).float()
        folded[f"{key}B.weight"] = up
        ranks[module_name], alphas[module_name] = side, alpha * groups
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "adapter_model.safetensors")
    config = {
        "base_model_name_or_path": name,
        "bias": "none",
        "fan_in_fan_out": name == "gpt2",
        "fused_projections": [{"module": "c_attn", "adapted": projections}] if projections else [],
        "lora_alpha": alpha,
        "peft_type": "MTLORA",
        "r": rank,
        "structure": structure,
        "target_modules": targets,
        "task_type": "CAUSAL_LM" if name == "gpt2" else "SEQ_CLS",
    }
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    plain = Path(tempfile.mkdtemp())
    save_file(folded, plain / "adapter_model.safetensors")
    # There is no task type, since PEFT would ask for a head.
    plain_config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=targets,
        rank_pattern=ranks,
        alpha_pattern=alphas,
        fan_in_fan_out=name == "gpt2",
    )
    plain_config.save_pretrained(plain)
    return plain


def golden():
    """Writes the adapters and logits that the Rust tests compare with."""
    shutil.rmtree(GOLDEN, ignore_errors=True)
    for name in ["roberta", "bert", "gpt2"]:
        inputs = fixture_inputs(name)
        expected = {}
        for seed, (case, settings) in enumerate(theirs(name).items()):
            model = make_theirs(MODELS / name, case, settings, GOLDEN / name / case, seed)
            expected[case] = exact(name, model, inputs)
        for seed, structure in enumerate(STRUCTURES):
            case = f"mtlora_{structure}"
            plain = make_ours(name, structure, GOLDEN / name / case, 100 + seed)
            model = PeftModel.from_pretrained(base(MODELS / name), plain).eval()
            expected[case] = exact(name, model, inputs)
            shutil.rmtree(plain)
        save_file(expected, GOLDEN / name / "expected.safetensors")
    size = sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file())
    print(f"{GOLDEN.relative_to(ROOT)}: {size // 1024} KiB")


# ---- The program against PEFT


def small_models(folder):
    """A random model of each kind, with the tokenizer of the repository's tiny ones."""
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
    made = {}
    for name in ["roberta", "bert", "gpt2", "deberta", "distilbert"]:
        torch.manual_seed(1)
        out = folder / name
        if name == "deberta":
            pieces = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
            pieces += ["\u2581the", "\u2581old", "\u2581dog", "\u2581cat", "\u2581sing", "\u2581", *"abcdefghijklmnopqrstuvwxyz.,"]
            tokenizer = DebertaV2Tokenizer(vocab=[(piece, 0.0 if "[" in piece else -float(len(pieces))) for piece in pieces])
            more = dict(relative_attention=True, position_buckets=6, pos_att_type=["p2c", "c2p"], share_att_key=True)
            more |= dict(norm_rel_ebd="layer_norm", position_biased_input=False)
            config = DebertaV2Config(vocab_size=len(pieces), max_position_embeddings=64, **more, **sizes)
        elif name == "distilbert":
            tokenizer = made["bert"][1]
            narrow = dict(dim=32, n_layers=2, n_heads=4, hidden_dim=48)
            config = DistilBertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **narrow)
        elif name == "bert":
            letters = "abcdefghijklmnopqrstuvwxyz.,"
            words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "old", "dog", "cat", "sings", "sleeps"]
            vocabulary = words + list(letters) + ["##" + letter for letter in letters]
            (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
            tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
            config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=64, **sizes)
        else:
            source = ROOT / f"assets/tiny-{name}"
            tokenizer = AutoTokenizer.from_pretrained(source)
            settings = json.loads((source / "config.json").read_text())
            if name == "roberta":
                config = RobertaConfig(**{**settings, **sizes, "num_labels": 2, "max_position_embeddings": 64})
            else:
                config = GPT2Config(**{**settings, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48})
        auto = AutoModelForCausalLM if name == "gpt2" else AutoModelForSequenceClassification
        model = auto.from_config(config).eval()
        # Logits of about one, for which single precision can keep 1e-5.
        size = 0.1 if name == "gpt2" else 0.2
        for value in model.parameters():
            value.data = torch.randn_like(value) * size + (value.data if value.dim() == 1 else 0)
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
        made[name] = (out, tokenizer)
    return made


SENTENCES = ["the old dog sleeps.", "a cat sings", "the the dog,", "old cat sings, old dog sleeps."]


def data(folder):
    """A table and pairs to train on."""
    rows = [f"{sentence},{index % 2}" for index, sentence in enumerate(["the dog sleeps", "old cats", "sing dog", "a cat"] * 4)]
    pairs = [{"prompt": sentence, "completion": sentence[::-1]} for sentence in SENTENCES * 3]
    out = folder / "data"
    out.mkdir()
    for split in ["train", "dev"]:
        (out / f"{split}.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    out = folder / "pairs"
    out.mkdir()
    for split in ["train", "dev"]:
        (out / f"{split}.jsonl").write_text("\n".join(map(json.dumps, pairs)) + "\n")
    return folder / "data", folder / "pairs"


def program_logits(*source):
    """The logits that `mtlora predict` has for the sentences."""
    rows = mtlora("predict", *source, "--format", "jsonl", text="\n".join(SENTENCES) + "\n")
    return torch.tensor([json.loads(row)["logits"] for row in rows.splitlines()])


def inputs_of(tokenizer, name):
    if name == "gpt2":
        ids = tokenizer(SENTENCES[3])["input_ids"]
        return {"input_ids": torch.tensor([ids])}
    tokenizer.padding_side = "right"
    inputs = dict(tokenizer(SENTENCES, return_tensors="pt", padding=True))
    if name == "distilbert":
        inputs.pop("token_type_ids", None)
    return inputs


def check_ours(folder, models, table, pairs):
    """What `train`, `export` and `merge` write, read by PEFT and transformers."""
    for name, (model, tokenizer) in models.items():
        inputs = inputs_of(tokenizer, name)
        for number, structure in enumerate(STRUCTURES):
            run = folder / f"run-{name}-{structure}"
            usual = ["train", "--model", model, "--structure", structure, "--out", run, "--rank", 3]
            usual += ["--epochs", 2, "--batch", 4, "--lr", "3e-2", "--alpha", 6, "--seed", number]
            if number % 2:
                usual += ["--use-rslora"]
            if name == "gpt2":
                projections = ["qkv", "qv", "k"][number % 3]
                targets = ["c_attn,c_fc", "c_attn", "c_attn,c_proj,wte,wpe"][number % 3]
                usual += ["--task", "pairs", "--data", pairs, "--max-length", 48, "--max-new-tokens", 4]
                usual += ["--num-beams", 2, "--projections", projections, "--targets", targets]
            else:
                targets = {
                    "deberta": ["query_proj,value_proj", "all-linear", "dense,word_embeddings"],
                    "distilbert": ["q_lin,v_lin", "all-linear", "out_lin,word_embeddings"],
                }.get(name, ["query,value", "all-linear", "dense,word_embeddings"])[number % 3]
                usual += ["--task", "table", "--data", table, "--targets", targets]
            mtlora(*usual)
            merged = folder / f"merged-{name}-{structure}"
            mtlora("merge", "--run", run, "--out", merged)
            wanted = logits(base(merged), inputs)
            plain = logits(base(model, labels_of(run)), inputs)
            if not (wanted - plain).abs().max() > 1e-3:
                sys.exit(f"{name} {structure}: nothing was learned, so the comparison would show nothing")
            if name != "gpt2":
                check(f"{name} {structure} predict and merge", program_logits("--run", run), wanted)
            for fold in FOLDS:
                out = folder / f"export-{name}-{structure}-{fold}"
                mtlora("export", "--run", run, "--out", out, "--fold", fold)
                check(f"{name} {structure} export {fold}", logits(with_peft(model, out), inputs), wanted)
            # The program reads its own export.
            again = folder / f"again-{name}-{structure}"
            mtlora("merge", "--adapter", out, "--model", model, "--out", again)
            check(f"{name} {structure} export read back", logits(base(again), inputs), wanted)
            if structure == "lora" and name != "gpt2":
                check(f"{name} the run itself", logits(with_peft(model, run), inputs), wanted)


def check_theirs(folder, models, table, pairs):
    """What PEFT writes, read by the program."""
    for name, (model, tokenizer) in models.items():
        inputs = inputs_of(tokenizer, name)
        for seed, (case, settings) in enumerate(theirs(name).items()):
            adapter = folder / f"theirs-{name}-{case}"
            peft = make_theirs(model, case, settings, adapter, seed)
            wanted = logits(peft, inputs)
            merged = folder / f"theirs-merged-{name}-{case}"
            mtlora("merge", "--adapter", adapter, "--model", model, "--out", merged)
            check(f"{name} {case} merge", logits(base(merged), inputs), wanted)
            if case == "lora":
                # As PEFT saved before safetensors.
                old = folder / f"theirs-old-{name}"
                peft.save_pretrained(old, safe_serialization=False)
                merged = folder / f"theirs-old-merged-{name}"
                mtlora("merge", "--adapter", old, "--model", model, "--out", merged)
                check(f"{name} {case} adapter_model.bin merge", logits(base(merged), inputs), wanted)
            task = ["--task", "pairs", "--data", pairs] if name == "gpt2" else ["--task", "table", "--data", table]
            if name != "gpt2":
                source = ["--adapter", adapter, "--model", model]
                check(f"{name} {case} predict", program_logits(*source), wanted)
                mtlora("eval", *source, *task)
            run = folder / f"theirs-run-{name}-{case}"
            # Plain LoRA can be continued in any structure.
            structure = [] if case in ("adalora", "dora") else ["--structure", "shim"]
            mtlora("import", "--adapter", adapter, "--model", model, "--out", run, *task, *structure)
            # DoRA's update is not of low rank, so that PEFT opens the run itself.
            out = run if case == "dora" else folder / f"theirs-export-{name}-{case}"
            if case != "dora":
                mtlora("export", "--run", run, "--out", out)
            check(f"{name} {case} import, export", logits(with_peft(model, out), inputs), wanted)


def check_two_weights(folder, models):
    """Adapters on a GPT-2 whose output map is not its embeddings, and on the copy that an error message says to make."""
    model, tokenizer = models["gpt2"]
    inputs = inputs_of(tokenizer, "gpt2")

    def untied(change):
        two = base(model)
        two.lm_head.weight = torch.nn.Parameter(change(two.lm_head.weight.detach().clone()))
        two.config.tie_word_embeddings = False
        return two

    apart = folder / "two-weights"
    untied(lambda weight: weight.roll(3, 0)).save_pretrained(apart)
    tokenizer.save_pretrained(apart)
    copied = folder / "two-weights-again"
    untied(lambda weight: weight).save_pretrained(copied)
    tokenizer.save_pretrained(copied)
    cases = {
        "output map": dict(target_modules=["lm_head"]),
        "embeddings": dict(target_modules=["wte"]),
        "both": dict(target_modules=["wte", "lm_head"]),
        "trained output map": dict(target_modules=["c_attn"], modules_to_save=["lm_head"]),
        "trained embeddings": dict(target_modules=["c_attn"], modules_to_save=["wte"]),
    }
    for seed, (case, settings) in enumerate(cases.items()):
        # A scale that leaves the logits at about one, like those of the models without an adapter.
        settings = dict(r=2, lora_alpha=0.5, task_type="CAUSAL_LM", **settings)
        for kind, of in [("apart", apart), ("copied", copied)]:
            out = folder / f"two-weights-{kind}-{seed}"
            peft = make_theirs(of, case, settings, out, seed)
            peft.save_pretrained(out, save_embedding_layers=False)
            wanted = logits(peft, inputs)
            merged = folder / f"two-weights-{kind}-{seed}-merged"
            mtlora("merge", "--adapter", out, "--model", of, "--out", merged)
            check(f"two weights {kind}, {case}: merge", logits(base(merged), inputs), wanted)
            # PEFT merges, and the program generates with the result.
            merged = folder / f"two-weights-{kind}-{seed}-python"
            peft.merge_and_unload().save_pretrained(merged)
            tokenizer.save_pretrained(merged)
            text = mtlora(
                *["generate", "--model", merged, "--num-beams", 1, "--max-new-tokens", 6],
                *["--no-repeat-ngram-size", 0],
                text=SENTENCES[3] + "\n",
            )
            written = base(merged).generate(
                **inputs, max_new_tokens=6, do_sample=False, pad_token_id=tokenizer.eos_token_id
            )
            whole, start = tokenizer.batch_decode([written[0], inputs["input_ids"][0]], skip_special_tokens=True)
            found = json.loads(text)["text"]
            if found != whole[len(start) :]:
                sys.exit(f"two weights {kind}, {case}: mtlora writes {found!r}, and transformers {whole[len(start):]!r}")


def check_golden(folder):
    """The committed MTLORA adapters have, after `export`, the logits that PEFT computed."""
    for name in ["roberta", "bert", "gpt2"]:
        expected = load_file(GOLDEN / name / "expected.safetensors")
        inputs = fixture_inputs(name)
        for structure in STRUCTURES:
            case = f"mtlora_{structure}"
            for fold in FOLDS:
                out = folder / f"golden-{name}-{case}-{fold}"
                mtlora("export", "--run", GOLDEN / name / case, "--out", out, "--fold", fold)
                config = json.loads((out / "adapter_config.json").read_text())
                # They have no head, and PEFT would make a new one for the task.
                config["task_type"] = None
                (out / "adapter_config.json").write_text(json.dumps(config))
                model = PeftModel.from_pretrained(base(MODELS / name), out).eval()
                check(f"golden {name} {case} {fold}", kept(name, logits(model, inputs)), expected[case])


def main():
    if sys.argv[1:] == ["golden"]:
        return golden()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        check_golden(folder)
        models = small_models(folder)
        table, pairs = data(folder)
        check_theirs(folder, models, table, pairs)
        check_two_weights(folder, models)
        check_ours(folder, models, table, pairs)
    print(f"{checks} comparisons of logits, all closer than {TOLERANCE}")


main()
