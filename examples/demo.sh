#!/bin/sh
# From a real delay log to a plan, a prediction, a check in virtual time, a real run, and one page.
set -eu
run=${1:-runs/demo}
started=$(date +%s)
step() { printf '%4ds  %s\n' $(($(date +%s) - started)) "$1"; }
quiet() { "$@" > "$run/last.txt"; }

mkdir -p "$run"
step "fit the delays of a production job"
quiet stalewise fit examples/pai_job_1.csv --out "$run"
step "plan digits-mlp on ten such workers"
quiet stalewise plan examples/digits.toml --gradients 22000 --out "$run"
head -n 14 "$run/last.txt"
step "predict the plan"
quiet stalewise predict "$run/planned.toml" --out "$run"
step "simulate the plan in virtual time"
quiet stalewise simulate "$run/planned.toml" --out "$run"
step "train it for real on local Ray"
quiet stalewise train "$run/planned.toml" --out "$run"
stalewise compare "$run/predict.json" "$run/simulate.json" "$run/train.json"
rm -f "$run/last.txt"
step "done"
stalewise report "$run"
