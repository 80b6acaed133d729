#!/bin/sh
# Makes what the first run needs, from nothing: the acceptability task's data and the tiny RoBERTa,
# pre-trained on text of the same grammar. Needs about ten minutes on two cores.
set -eu
cd "$(dirname "$0")/.."
corpus=$(mktemp)
trap 'rm -f "$corpus"' EXIT
cargo run --release --example first_run_data -- assets/acceptability "$corpus"
cargo run --release -- pretrain --text "$corpus" --out assets/tiny-roberta --overwrite \
    --vocab-size 1200 --hidden-size 128 --layers 3 --heads 4 --intermediate-size 512 --max-length 64 \
    --steps 4000 --batch 64 --lr 2e-3 --seed 0
