#!/usr/bin/env bash
# Measure `make demo` as a newcomer meets it: each round a fresh clone, a first and a second run.
#
#   scripts/bench_demo.sh 3       prints the seconds of each run, and their medians
#
# Packages come from uv's cache, as they do for whoever has installed them once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export UV_CACHE_DIR=${UV_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/uv}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for ((round = 1; round <= ${1:-3}; round++)); do
  git clone --quiet . "$folder/$round"
  for run in first second; do
    HOME=$folder make -C "$folder/$round" demo >"$folder/log" || { cat "$folder/log" && exit 1; }
    grep -oE 'done in [0-9]+' "$folder/log" | grep -oE '[0-9]+' >>"$folder/$run"
    echo "round $round, $run run: $(tail -n 1 "$folder/$run") s"
  done
done
for run in first second; do
  sort -n "$folder/$run" | awk -v run="$run" '{s[NR] = $1} END {print "median of the " run " runs: " s[int((NR + 1) / 2)] " s"}'
done
