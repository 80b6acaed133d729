#!/usr/bin/env python3
"""Fine-tunes one encoder with every structure, on five GLUE tasks, from three seeds, and writes the tables as Markdown.

    python benches/glue.py run --mtlora target/release/mtlora --model MINILM --data GLUE --results docs/results/minilm
    python benches/glue.py table --results docs/results/minilm

A task's learning rate is the best of two on dev with `lora` and seed 0; all structures, seeds and precisions then use it.
Each run leaves one JSON file, and a run whose file is there is not repeated, so you can stop and continue at any time.
Needs nothing but Python's standard library.
"""

import argparse
import json
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

STRUCTURES = ["lora", "shim", "icfm", "ctcm", "dtsm"]
SEEDS = [0, 1, 2]
RATES = ["1e-3", "3e-3"]
# Passes over the train split, and the metrics of the table; the first chooses the learning rate.
TASKS = {
    "mrpc": (3, ["accuracy", "f1"]),
    "cola": (6, ["matthews"]),
    "stsb": (5, ["pearson", "spearman"]),
    "rte": (6, ["accuracy"]),
    "sst2": (1, ["accuracy"]),
}
# The tasks on which bases in reduced precision are compared with f32, with `lora`.
REDUCED = ["mrpc", "stsb"]
SETTINGS = ["--rank", "8", "--alpha", "16", "--targets", "query,value", "--batch", "32"]


def name(task, structure, dtype, rate, seed):
    return f"{task}-{structure}-{dtype}-{rate}-{seed}"


def path(args, run):
    return args.results / f"{name(*run)}.json"


def train(args, run):
    """Runs the program once. The last line of its standard output, with the settings added, becomes the file."""
    task, structure, dtype, rate, seed = run
    with tempfile.TemporaryDirectory() as folder:
        command = [args.mtlora, "train", "--model", args.model, "--task", task, "--data", args.data, *SETTINGS]
        command += ["--structure", structure, "--base-dtype", dtype, "--lr", rate, "--seed", str(seed)]
        command += ["--epochs", str(TASKS[task][0]), "--out", f"{folder}/run", "--threads", str(args.threads)]
        done = subprocess.run([*command, "--json", "--plain"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name(*run)} failed:\n{done.stderr}")
    report = json.loads(done.stdout.splitlines()[-1])
    settings = {"structure": structure, "base_dtype": dtype, "lr": rate, "seed": seed, "epochs": TASKS[task][0]}
    part = path(args, run).with_suffix(".part")
    part.write_text(json.dumps({**settings, **report}, indent=1) + "\n")
    part.rename(path(args, run))
    print(name(*run), report["metrics"], f"{report['train_seconds']:.0f} s", flush=True)


def all_of(args, runs):
    """Trains the runs that have no file yet, `args.jobs` of them at once."""
    waiting = queue.Queue()
    for run in runs:
        if not path(args, run).exists():
            waiting.put(run)
    failed = []

    def work():
        while not failed:
            try:
                train(args, waiting.get_nowait())
            except queue.Empty:
                return
            except SystemExit as error:
                failed.append(error)

    workers = [threading.Thread(target=work) for _ in range(args.jobs)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failed:
        raise failed[0]


def read(args, run):
    """The report of the run, or None if the run has not written one yet."""
    file = path(args, run)
    return json.loads(file.read_text()) if file.exists() else None


def best_rate(args, task):
    """The learning rate with the better first metric, or None before both are tried."""
    tried = [(read(args, (task, "lora", "f32", rate, 0)), rate) for rate in RATES]
    if not all(report for report, _ in tried):
        return None
    return max(tried, key=lambda pair: pair[0]["metrics"][TASKS[task][1][0]])[1]


def run(args):
    args.results.mkdir(parents=True, exist_ok=True)
    all_of(args, [(task, "lora", "f32", rate, 0) for task in TASKS for rate in RATES])
    rate = {task: best_rate(args, task) for task in TASKS}
    # One seed after the other, so that an unfinished table has all structures for the seeds that it has.
    for seed in SEEDS:
        all_of(args, [(task, structure, "f32", rate[task], seed) for task in TASKS for structure in STRUCTURES])
    reduced = [(task, "lora", dtype, rate[task], seed) for task in REDUCED for dtype in ["bf16", "int8"]
               for seed in SEEDS]
    all_of(args, reduced)


def cell(values):
    """Mean and standard deviation of a metric, with the number of seeds if some are missing."""
    if not values:
        return "–"
    text = f"{statistics.mean(values):.4f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.4f}"
    return text if len(values) == len(SEEDS) else f"{text} ({len(values)} of {len(SEEDS)})"


def seeds_of(args, task, structure, dtype):
    rate = best_rate(args, task)
    found = [read(args, (task, structure, dtype, rate, seed)) for seed in SEEDS] if rate else []
    return [report for report in found if report]


def table(args):
    print("| task | epochs | " + " | ".join(f"lr {rate}" for rate in RATES) + " | chosen |\n" + "|---" * (3 + len(RATES)) + "|")
    for task, (epochs, metrics) in TASKS.items():
        tried = [read(args, (task, "lora", "f32", rate, 0)) for rate in RATES]
        scores = [f"{t['metrics'][metrics[0]]:.4f}" if t else "–" for t in tried]
        print(f"| {task}, {metrics[0]} | {epochs} | {' | '.join(scores)} | {best_rate(args, task) or '–'} |")

    columns = [f"{task}, {metric}" for task, (_, metrics) in TASKS.items() for metric in metrics]
    print("\n| structure | " + " | ".join(columns) + " |\n" + "|---" * (1 + len(columns)) + "|")
    for structure in STRUCTURES:
        cells = [cell([report["metrics"][metric] for report in seeds_of(args, task, structure, "f32")])
                 for task, (_, metrics) in TASKS.items() for metric in metrics]
        print(f"| `{structure}` | {' | '.join(cells)} |")

    print("\n| `lora` | f32 | bf16 | int8 |\n" + "|---" * 4 + "|")
    for task in REDUCED:
        for metric in TASKS[task][1]:
            cells = [cell([report["metrics"][metric] for report in seeds_of(args, task, "lora", dtype)])
                     for dtype in ["f32", "bf16", "int8"]]
            print(f"| {task}, {metric} | {' | '.join(cells)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run", help="train whatever has no result yet")
    running.add_argument("--mtlora", default="target/release/mtlora", help="the program")
    running.add_argument("--model", required=True, help="folder of the encoder, or its name on the Hub")
    running.add_argument("--data", required=True, help="folder with GLUE's folders")
    running.add_argument("--jobs", type=int, default=1, help="runs at once")
    running.add_argument("--threads", type=int, default=2, help="threads of each run")
    running.set_defaults(do=run)
    writing = commands.add_parser("table", help="write the tables of the results that are there")
    writing.set_defaults(do=table)
    for command in (running, writing):
        command.add_argument("--results", type=Path, required=True, help="folder of the results, one JSON file a run")
    args = parser.parse_args()
    args.do(args)


if __name__ == "__main__":
    main()
