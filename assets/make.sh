#!/bin/sh
# Makes what the first runs need, from nothing: the acceptability task's data and the tiny RoBERTa, the
# facts task's data and the tiny GPT-2, each pre-trained on text of its task's grammar. Needs about half
# an hour on two cores.
set -eu
cd "$(dirname "$0")/.."
corpus=$(mktemp)
trap 'rm -f "$corpus"' EXIT
cargo run --release --example first_run_data -- assets/acceptability "$corpus"
cargo run --release -- pretrain --text "$corpus" --out assets/tiny-roberta --overwrite \
    --vocab-size 1200 --hidden-size 128 --layers 3 --heads 4 --intermediate-size 512 --max-length 64 \
    --steps 4000 --batch 64 --lr 2e-3 --seed 0
cargo run --release --example facts_data -- assets/facts "$corpus"
cargo run --release -- pretrain --architecture gpt2 --text "$corpus" --out assets/tiny-gpt2 --overwrite \
    --vocab-size 1000 --hidden-size 128 --layers 3 --heads 4 --max-length 192 \
    --steps 4000 --batch 64 --lr 2e-3 --seed 0
# The conversations of the chat example, which need no model of their own.
cargo run --release --example chat_data -- assets/chat
