#!/usr/bin/env python3
"""Times what people would use instead: PyTorch, transformers and PEFT, on the work that `mtlora bench` does.

    python -m venv peft && peft/bin/pip install torch transformers peft
    peft/bin/python benches/peft_baseline.py step --model roberta-base --batch 16 --seq 128 --dtype bf16
    peft/bin/python benches/peft_baseline.py step --method full --batch 16 --seq 64
    peft/bin/python benches/peft_baseline.py epoch --task mrpc --data glue --tokenizer roberta/tokenizer.json --batch 32
    peft/bin/python benches/peft_baseline.py chat --data chats.jsonl --model-folder smollm2 --batch 4
    peft/bin/python benches/peft_baseline.py generate --beams 10

With `--method full` all weights train, and PEFT has no part in it. Models have random weights, on which neither time nor memory depends. Prints one JSON object: medians, and the process's
highest resident memory.
"""

import argparse
import json
import random
import resource
import statistics
import sys
import time
from pathlib import Path

import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer

# Folder of the task's files, the columns of the sentences and of the label, and whether a header line comes first.
TASKS = {"mrpc": ("MRPC", (3, 4), 0, True), "cola": ("CoLA", (3,), 1, False)}
PAD = 1
# The label of a token that is not learned.
IGNORED = -100


def roberta_base(method="lora"):
    """RoBERTa-base with a classification head; rank 8 on query and value, or all weights."""
    config = transformers.RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1)
    model = transformers.RobertaForSequenceClassification(config)
    if method == "full":
        return model
    lora = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, lora_dropout=0.0, target_modules=["query", "value"],
                      use_dora=method == "dora")
    return get_peft_model(model, lora)


def deberta_v3_base(method="lora"):
    """DeBERTaV3-base with a classification head; rank 8 on query and value, or all weights. The pooler trains, as the whole head does."""
    config = transformers.DebertaV2Config(
        vocab_size=128100, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
        relative_attention=True, position_buckets=256, pos_att_type=["p2c", "c2p"], share_att_key=True,
        norm_rel_ebd="layer_norm", position_biased_input=False)
    model = transformers.DebertaV2ForSequenceClassification(config)
    if method == "full":
        return model
    lora = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, lora_dropout=0.0, target_modules=["query_proj", "value_proj"],
                      use_dora=method == "dora", modules_to_save=["pooler"])
    return get_peft_model(model, lora)


ENCODERS = {"roberta-base": roberta_base, "deberta-v3-base": deberta_v3_base}


def gpt2(method="lora"):
    """GPT-2 small; rank 4 on the merged queries, keys and values, or all weights."""
    if method == "full":
        return transformers.GPT2LMHeadModel(transformers.GPT2Config())
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=32, lora_dropout=0.1, target_modules=["c_attn"],
                      use_dora=method == "dora", fan_in_fan_out=True)
    return get_peft_model(transformers.GPT2LMHeadModel(transformers.GPT2Config()), lora)


def smollm2_135m(method="lora"):
    """SmolLM2-135M; rank 8 on all linear maps but the output, or all weights."""
    config = transformers.LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=8192, rms_norm_eps=1e-5, tie_word_embeddings=True)
    model = transformers.LlamaForCausalLM(config)
    if method == "full":
        return model
    lora = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear",
                      use_dora=method == "dora")
    return get_peft_model(model, lora)


DECODERS = {"gpt2": gpt2, "smollm2-135m": smollm2_135m}


class Training:
    """Steps of AdamW over what trains. In bf16, PyTorch's own way: weights in f32, products under autocast."""

    def __init__(self, model, dtype, optimizer="default"):
        self.model = model.train()
        self.bf16 = dtype == "bf16"
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        fused = {"fused": True} if optimizer == "fused" else {}
        self.optimizer = torch.optim.AdamW(trained, lr=4e-4, weight_decay=0.1, **fused)

    def step(self, **batch):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
            loss = self.model(**batch).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def waited_seconds():
    """For how long this process's threads were ready to run and had no core; None where the system does not say (Linux does)."""
    files = Path("/proc/self/task").glob("*/schedstat")
    waited = [int(one.read_text().split()[1]) for one in files]
    return sum(waited) / 1e9 if waited else None


def seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def median_seconds(run, untimed, timed):
    return statistics.median([seconds(run) for _ in range(untimed + timed)][untimed:])


def step(args):
    ids = torch.randint(5, 49000, (args.batch, args.seq))
    if args.model in DECODERS:
        model, batch = DECODERS[args.model](args.method), {"input_ids": ids, "labels": ids}
    else:
        labels = torch.randint(0, 2, (args.batch,))
        model = ENCODERS[args.model](args.method)
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    training = Training(model, args.dtype, args.optimizer)
    each = median_seconds(lambda: training.step(**batch), untimed=2, timed=args.steps)
    return {"median_step_s": each, "tokens_per_s": args.batch * args.seq / each}


def examples(args):
    """The task's train split: token ids and class, in an order drawn from seed 0."""
    folder, sentences, label, has_header = TASKS[args.task]
    tokenizer = Tokenizer.from_file(args.tokenizer)
    tokenizer.no_padding()
    tokenizer.enable_truncation(512)
    lines = Path(args.data, folder, "train.tsv").read_text(encoding="utf-8").split("\n")[has_header:]
    rows = [line.split("\t") for line in lines if line.count("\t") >= max(*sentences, label)]
    read = [(tokenizer.encode(*(row[column] for column in sentences)).ids, int(row[label])) for row in rows]
    random.Random(0).shuffle(read)
    return read


def padded(rows, filler):
    """The rows as one tensor, each filled up to the longest."""
    longest = max(map(len, rows))
    return torch.tensor([row + [filler] * (longest - len(row)) for row in rows])


def timed_epoch(examples, batch_size, train):
    """The speed of `train` on all batches, from the first: the time includes padding, not tokenization."""
    starts = range(0, len(examples), batch_size)
    times = [seconds(lambda: train(examples[first:first + batch_size])) for first in starts]
    return {"examples": len(examples), "examples_per_s": len(examples) / sum(times)}


def epoch(args):
    """A classification task; each batch is padded to its longest."""
    training = Training(roberta_base(), args.dtype)

    def train(batch):
        ids = padded([ids for ids, _ in batch], PAD)
        labels = torch.tensor([label for _, label in batch])
        training.step(input_ids=ids, attention_mask=(ids != PAD).long(), labels=labels)

    return timed_epoch(examples(args), args.batch, train)


def conversations(args):
    """The token ids of each line's `messages`, rendered with the folder's template and cut, and how many come before the answer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.model_folder)

    def ids(messages, **more):
        return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **more)["input_ids"]

    read = []
    for line in Path(args.data).read_text(encoding="utf-8").splitlines():
        messages = json.loads(line)["messages"]
        before = len(ids(messages[:-1], add_generation_prompt=True))
        whole = ids(messages)[:args.max_length]
        if before < len(whole):
            read.append((whole, before))
    random.Random(0).shuffle(read)
    return read


def chat(args):
    """SmolLM2-135M learns the last answer of each conversation; each batch is padded to its longest."""
    training = Training(smollm2_135m(), args.dtype)

    def train(batch):
        ids = padded([ids for ids, _ in batch], PAD)
        mask = padded([[1] * len(ids) for ids, _ in batch], 0)
        labels = padded([[IGNORED] * before + ids[before:] for ids, before in batch], IGNORED)
        training.step(input_ids=ids, attention_mask=mask, labels=labels)

    return timed_epoch(conversations(args), args.batch, train)


def generate(args):
    """Beam search as GPT-2's data-to-text experiments use it, over a prompt of 32 tokens."""
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    ids = torch.randint(5, 50000, (args.batch, 32))
    settings = {"num_beams": args.beams, "max_new_tokens": 64, "min_new_tokens": 64, "do_sample": False,
                "no_repeat_ngram_size": 4, "length_penalty": 0.9, "pad_token_id": 50256}
    each = median_seconds(lambda: model.generate(ids, **settings), untimed=1, timed=args.steps)
    return {"median_step_s": each, "tokens_per_s": args.batch * 64 / each}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    of_step = commands.add_parser("step", help="whole training steps, all of one length")
    of_step.add_argument("--model", choices=[*ENCODERS, *DECODERS], default="roberta-base")
    of_step.add_argument("--method", choices=["lora", "dora", "full"], default="lora", help="what trains [%(default)s]")
    of_step.add_argument("--optimizer", choices=["default", "fused"], default="default",
                         help="PyTorch's AdamW as it comes, or its fused form [%(default)s]")
    of_step.add_argument("--seq", type=int, default=128, help="tokens of a sequence [%(default)s]")
    of_epoch = commands.add_parser("epoch", help="a task's train split with RoBERTa-base, at its real lengths")
    of_epoch.add_argument("--task", choices=list(TASKS), default="mrpc")
    of_epoch.add_argument("--data", required=True, help="the GLUE folder")
    of_epoch.add_argument("--tokenizer", required=True, help="RoBERTa's tokenizer.json")
    of_chat = commands.add_parser("chat", help="conversations with SmolLM2-135M, at their real lengths")
    of_chat.add_argument("--data", required=True, help="a JSONL file with `messages`")
    of_chat.add_argument("--model-folder", required=True, help="the folder with the tokenizer and the chat template")
    of_chat.add_argument("--max-length", type=int, default=512, help="longer conversations are cut [%(default)s]")
    of_generate = commands.add_parser("generate", help="beam search with GPT-2 small")
    of_generate.add_argument("--beams", type=int, default=10, help="[%(default)s]")
    for command, do, batch in ((of_step, step, 16), (of_epoch, epoch, 32), (of_chat, chat, 4), (of_generate, generate, 1)):
        command.set_defaults(do=do)
        command.add_argument("--batch", type=int, default=batch, help="sequences in a batch [%(default)s]")
        command.add_argument("--threads", type=int, help="[PyTorch's own choice]")
    for command in (of_step, of_epoch, of_chat):
        command.add_argument("--dtype", choices=["f32", "bf16"], default="f32", help="[%(default)s]")
    for command in (of_step, of_generate):
        command.add_argument("--steps", type=int, default=6, help="timed steps or generations [%(default)s]")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    transformers.logging.set_verbosity_error()
    before, start = waited_seconds(), time.perf_counter()
    report = args.do(args)
    if before is not None:
        took = (time.perf_counter() - start) * torch.get_num_threads()
        report["waited_fraction"] = (waited_seconds() - before) / took
    report["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    # Kilobytes, on macOS bytes.
    per_mebibyte = 2**20 if sys.platform == "darwin" else 2**10
    report["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_mebibyte
    report["peer"] = f"peft {peft.__version__}, torch {torch.__version__}, transformers {transformers.__version__}"
    print(json.dumps(report))


if __name__ == "__main__":
    main()
