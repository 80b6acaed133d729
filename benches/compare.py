#!/usr/bin/env python3
"""Measures mtlora and PyTorch + PEFT on the same work in turn, A B A B, and writes the ratios as Markdown.

    python benches/compare.py --mtlora target/release/mtlora --python PEFT_ENVIRONMENT/bin/python \\
        --data glue --tokenizer roberta/tokenizer.json --out comparison.md

Compare only ratios from one run: a machine's speed changes, especially if others use it. peft_baseline.py makes the
same models with PEFT; it runs under --python. Needs nothing but Python's standard library itself.

With --cpu, both sides keep to the instructions of a smaller processor: under the program --ascpu, which traps CPUID, where
it is given and works; else by MTLORA_CPU and by the variables that PyTorch, oneDNN and MKL read. The output says which.
"""

import argparse
import json
import os
import platform
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

BASELINE = Path(__file__).with_name("peft_baseline.py")
# The variables by which PyTorch's own kernels, oneDNN's and MKL's keep to an instruction set. MKL reads its variable on Intel's
# processors only; on AMD's it has AVX2 at most by itself.
PEERS_CPU = {
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "avx512": {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI", "MKL_ENABLE_INSTRUCTIONS": "AVX512"},
}
# The share of its time for which a run's threads may wait for a core before it counts as disturbed.
MOST_WAITED = 0.02
# GLUE's train files: folder, columns that must be there, whether a header line comes first.
GLUE = {"mrpc": ("MRPC", 4, True), "cola": ("CoLA", 3, False)}
ENCODER = ["--rank", "8", "--alpha", "16", "--targets", "query,value", "--adapter-dropout", "0"]
DEBERTA = ["--rank", "8", "--alpha", "16", "--targets", "query_proj,value_proj", "--adapter-dropout", "0"]
DECODER = ["--rank", "4", "--alpha", "32", "--targets", "c_attn,c_fc", "--adapter-dropout", "0.1"]
LINEAR = ["--rank", "8", "--alpha", "16", "--targets", "all-linear", "--adapter-dropout", "0"]


class Row:
    """A line of the table: the same work for both, and the function that takes the seconds from their reports."""

    def __init__(self, title, ours, theirs, seconds, dtypes=("f32", "bf16")):
        self.title, self.ours, self.theirs = title, ours, theirs
        self.seconds, self.dtypes = seconds, dtypes


def step_seconds(report):
    return report["median_step_s"]


def example_seconds(report):
    return 1 / report["examples_per_s"]


def table(args, folder):
    """All rows by name. The examples of epochs that are not whole are written to `folder`."""
    timed = ["--steps", str(args.steps)]

    def step(model, title, batch, seq, adapter):
        size = ["--model", model, "--batch", str(batch), "--seq", str(seq)]
        ours = ["step", *size, "--structure", args.structure, *adapter, *timed]
        theirs = ["--method", "dora"] if args.structure == "dora" else []
        return Row(title, ours, ["step", *size, *theirs, *timed], step_seconds)

    def full(model, title, batch, seq):
        # The fastest that PyTorch offers: its fused AdamW.
        size = ["--model", model, "--batch", str(batch), "--seq", str(seq), "--method", "full"]
        return Row(title, ["step", *size, *timed], ["step", *size, "--optimizer", "fused", *timed], step_seconds, ("f32",))

    def epoch(task):
        batch, data = 32, args.data
        title = f"RoBERTa-base, an epoch of {task}, batches of {batch}"
        if args.max_steps:
            title = f"{title}, {args.max_steps * batch} examples of it"
        if args.max_steps and f"{task}-epoch" in args.rows:
            data = sample(args.data, task, args.max_steps * batch, folder)
        work = ["--task", task, "--data", data, "--tokenizer", args.tokenizer, "--batch", str(batch)]
        ours = ["epoch", "--model", "roberta-base", *work, "--max-length", "512", "--structure", args.structure, *ENCODER]
        return Row(title, ours, ["epoch", *work], example_seconds)

    def chat():
        batch, data, folder_of_model = 4, args.chat, args.chat_model
        title = f"SmolLM2-135M, conversations of real lengths, batches of {batch}, at most 512 tokens"
        if "smollm2-chat" in args.rows:
            if not data or not folder_of_model:
                sys.exit("the row smollm2-chat needs --chat and --chat-model")
            if args.max_steps:
                lines = Path(data).read_text(encoding="utf-8").splitlines(keepends=True)
                random.Random(0).shuffle(lines)
                data = str(Path(folder, "chat.jsonl"))
                Path(data).write_text("".join(lines[:args.max_steps * batch]), encoding="utf-8")
                title = f"{title}, {args.max_steps * batch} of them"
        size = ["--batch", str(batch), "--max-length", "512"]
        ours = ["epoch", "--model", folder_of_model, "--task", "chat", "--data", data, *size, "--structure", args.structure, *LINEAR]
        return Row(title, ours, ["chat", "--data", data, "--model-folder", folder_of_model, *size], example_seconds)

    size = ["--batch", "1", "--beams", "10"]
    return {
        "roberta-step": step("roberta-base", "RoBERTa-base step, 16 x 128", 16, 128, ENCODER),
        "deberta-step": step("deberta-v3-base", "DeBERTaV3-base step, 16 x 128", 16, 128, DEBERTA),
        "roberta-full": full("roberta-base", "RoBERTa-base, full fine-tuning, 16 x 64", 16, 64),
        "gpt2-full": full("gpt2", "GPT-2 small, full fine-tuning, 4 x 256", 4, 256),
        "mrpc-epoch": epoch("mrpc"),
        "cola-epoch": epoch("cola"),
        "gpt2-step": step("gpt2", "GPT-2 small step, 4 x 256", 4, 256, DECODER),
        "smollm2-step": step("smollm2-135m", "SmolLM2-135M step, 4 x 512", 4, 512, LINEAR),
        "smollm2-chat": chat(),
        "gpt2-generate": Row("GPT-2 small, 10 beams, 64 tokens, one prompt",
                             ["generate", "--model", "gpt2", *size, "--seq", "32", "--new-tokens", "64", *timed],
                             ["generate", *size, *timed], step_seconds, ("f32",)),
    }


def sample(data, task, count, folder):
    """A GLUE folder with only `count` examples of the task's train file, drawn at random."""
    name, last, has_header = GLUE[task]
    lines = Path(data, name, "train.tsv").read_text(encoding="utf-8").split("\n")
    header, lines = (lines[:1], lines[1:]) if has_header else ([], lines)
    rows = [line for line in lines if line.count("\t") >= last]
    random.Random(0).shuffle(rows)
    target = Path(folder, name)
    target.mkdir()
    text = "".join(f"{line}\n" for line in header + rows[:count])
    (target / "train.tsv").write_text(text, encoding="utf-8")
    return str(folder)


def limits(cpu, ascpu):
    """What comes before each command, the variables of ours and the peer's, and how to say it."""
    if not cpu:
        return [], {}, {}, ""
    if ascpu and subprocess.run([ascpu, cpu, "true"], stderr=subprocess.DEVNULL).returncode == 0:
        return [ascpu, cpu], {}, {}, f"both under `ascpu {cpu}`"
    ours, theirs = {"MTLORA_CPU": cpu}, PEERS_CPU[cpu]
    text = " ".join(f"{name}={value}" for name, value in theirs.items())
    return [], ours, theirs, f"mtlora with `MTLORA_CPU={cpu}`, the peer with `{text}`"


def disturbed(report):
    """Why a run does not count, or nothing."""
    reasons = list((report.get("disturbance") or {}).get("reasons", []))
    waited = report.get("waited_fraction") or 0
    if waited > MOST_WAITED:
        reasons.append(f"its threads waited {waited:.0%} of their time for a core")
    return ", and ".join(reasons)


def report(command, variables):
    """The JSON object at the end of what the command prints."""
    environment = {**os.environ, **variables}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        sys.exit(f"{shlex.join(command)}\nended with status {done.returncode}:\n{done.stderr}")
    return json.loads(lines[-1])


def compare(row, args):
    """The reports of both, pair by pair."""
    prefix, our_variables, their_variables, _ = limits(args.cpu, args.ascpu)
    ours = [*prefix, args.mtlora, "bench", *row.ours, "--json"]
    theirs = [*prefix, args.python, str(BASELINE), *row.theirs]
    if args.dtype != "f32":
        ours += ["--base-dtype", args.dtype]
        theirs += ["--dtype", args.dtype]
    if args.threads:
        ours += ["--threads", str(args.threads)]
        theirs += ["--threads", str(args.threads)]
    pairs = []
    for number in range(1, args.pairs + 1):
        pair = report(ours, our_variables), report(theirs, their_variables)
        pairs.append(pair)
        for side, one in zip(("mtlora", "the peer"), pair):
            if reasons := disturbed(one):
                print(f"{row.title}, pair {number}: {side} was disturbed: {reasons}", file=sys.stderr, flush=True)
        seconds = [row.seconds(one) for one in pair]
        print(f"{row.title}, pair {number} of {args.pairs}: {seconds[0]:.4g} s, {seconds[1]:.4g} s, "
              f"{seconds[1] / seconds[0]:.2f} times as fast", file=sys.stderr, flush=True)
    return pairs


def line(row, pairs):
    """The row's line of the table."""
    median = statistics.median
    ours, theirs = zip(*pairs)
    times = [row.seconds(their) / row.seconds(our) for our, their in pairs]
    memory = [our["peak_rss_mb"] / their["peak_rss_mb"] for our, their in pairs]
    seconds = [f"{median(map(row.seconds, side)):.3g} s" for side in (ours, theirs)]
    if row.seconds is example_seconds:
        seconds = [f"{median(one['examples_per_s'] for one in side):.3g} examples/s" for side in (ours, theirs)]
    peaks = [f"{median(one['peak_rss_mb'] for one in side):.0f} MiB" for side in (ours, theirs)]
    each = ", ".join(f"{one:.2f}" for one in times)
    share = median(one.get("fraction_of_peak") or float("nan") for one in ours)
    cells = [row.title, *seconds, f"**{median(times):.2f}** ({each})", *peaks, f"**{median(memory):.2f}**", f"{share:.2f}"]
    return f"| {' | '.join(cells)} |"


def machine():
    """The processor, its vector instructions and the memory, as far as the system reports them."""
    found, flags = {}, set()
    for path in ("/proc/cpuinfo", "/proc/meminfo"):
        if os.path.exists(path):
            for text in Path(path).read_text().splitlines():
                name, _, value = text.partition(":")
                found.setdefault(name.strip(), value.strip())
    flags.update(found.get("flags", found.get("Features", "")).split())
    known = [name for name in ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16") if name in flags]
    memory = int(found.get("MemTotal", "0 kB").split()[0]) / 2**20
    name = found.get("model name", platform.processor() or platform.machine())
    load = f"; load before: {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{name}, {os.cpu_count()} cores ({', '.join(known)}), {memory:.0f} GiB, {platform.system()}{load}"


def shown(program, words, args):
    """A command as a reader can run it, without this machine's folders."""
    names = {args.data: "glue", args.tokenizer: "tokenizer.json", args.chat: "chats.jsonl", args.chat_model: "smollm2"}
    words = [names.get(word, word) for word in words]
    # The examples of a part of an epoch lie in a folder of this program's own.
    words = ["SAMPLE" if os.path.isabs(word) else word for word in words]
    return f"{program} {shlex.join(words)}"


def markdown(args, rows, results, versions):
    """The text to paste into a document."""
    how = limits(args.cpu, args.ascpu)[3]
    limited = f"; {how}" if how else ""
    text = [f"{args.pairs} pairs, mtlora and its peer in turn; medians, and the ratio of each pair. "
            f"Peer: {versions[1]}. {versions[0]}, `{args.structure}`, {args.dtype}{limited}.", "",
            "| work | mtlora | PEFT | times as fast | mtlora's peak memory | PEFT's | of PEFT's | of the processor's peak |",
            "|---|---|---|---|---|---|---|---|"]
    text += [line(rows[name], results[name]) for name in results]
    runs = [one for pairs in results.values() for pair in pairs for one in pair]
    count = sum(bool(disturbed(one)) for one in runs)
    text += ["", f"Disturbed by other programs: {count} of {len(runs)} runs."]
    text += ["", "```sh"]
    for name in results:
        ours, theirs = ([option, args.dtype] if args.dtype != "f32" else [] for option in ("--base-dtype", "--dtype"))
        text.append(shown("mtlora bench", rows[name].ours + ours, args))
        text.append(shown("python benches/peft_baseline.py", rows[name].theirs + theirs, args))
    text.append("```")
    if args.max_steps and any(name.endswith("-epoch") for name in results):
        text += ["", "`SAMPLE` is a folder with as many examples of the task, drawn at random."]
    return "\n".join([*text, ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--mtlora", default="target/release/mtlora", help="the program [%(default)s]")
    add("--python", default=sys.executable, help="an interpreter with torch, transformers and peft [this one]")
    add("--data", help="the GLUE folder, for the rows of epochs")
    add("--tokenizer", help="RoBERTa's tokenizer.json, for the rows of epochs")
    add("--chat", help="a JSONL file with `messages`, for the row smollm2-chat")
    add("--chat-model", help="SmolLM2's folder, for the row smollm2-chat")
    add("--rows", default="", help="names of rows, separated by commas [all]")
    add("--pairs", type=int, default=5, help="[%(default)s]")
    add("--steps", type=int, default=5, help="timed steps, or generations, of each run [%(default)s]")
    add("--max-steps", type=int, help="batches of an epoch, with the same examples for both [the whole epoch]")
    add("--dtype", choices=["f32", "bf16"], default="f32", help="[%(default)s]")
    add("--structure", default="lora", help="mtlora's; PEFT has dora for steps, else lora [%(default)s]")
    add("--threads", type=int, help="[each program's own choice]")
    add("--cpu", choices=list(PEERS_CPU), help="the instructions that both sides keep to [all that the processor has]")
    add("--ascpu", help="a program that runs another as if on a smaller processor: ascpu LEVEL COMMAND")
    add("--out", help="the file for the Markdown [standard output]")
    add("--beside", metavar="COMMAND", help="also run this, as 'cargo bench --bench train_step', and add what it prints")
    add("--raw", help="a file for all reports, as JSON")
    args = parser.parse_args()
    if args.pairs < 1 or args.steps < 1 or (args.max_steps is not None and args.max_steps < 1):
        parser.error("--pairs, --steps and --max-steps must be at least 1")
    names = [name for name in args.rows.split(",") if name]
    args.rows = names or ["roberta-step", "roberta-full", "mrpc-epoch", "cola-epoch", "gpt2-step", "gpt2-generate"]

    if any(name.endswith("-epoch") for name in args.rows) and not (args.data and args.tokenizer):
        parser.error("the rows of epochs need --data and --tokenizer")

    where = machine()
    with tempfile.TemporaryDirectory() as folder:
        rows = table(args, folder)
        unknown = [name for name in args.rows if name not in rows]
        if unknown:
            parser.error(f"there is no row {', '.join(unknown)}; there are {', '.join(rows)}")
        wanted = [name for name in args.rows if args.dtype in rows[name].dtypes]
        results = {name: compare(rows[name], args) for name in wanted}
        if not results:
            parser.error(f"none of these rows is measured in {args.dtype}")
        version = subprocess.run([args.mtlora, "--version"], stdout=subprocess.PIPE, text=True).stdout.strip()
        peer = next(iter(results.values()))[0][1]["peer"]
        text = f"{where}. {markdown(args, rows, results, [version, peer])}"
    if args.beside:
        print(args.beside, file=sys.stderr)
        done = subprocess.run(shlex.split(args.beside), stdout=subprocess.PIPE, text=True, check=True)
        text += f"\n`{args.beside}`:\n\n{done.stdout}"
    if args.raw:
        Path(args.raw).write_text(json.dumps({name: results[name] for name in results}, indent=1))
    if args.out:
        Path(args.out).write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
