#!/usr/bin/env bash
# Make the Python environments under .venvs/, one for each program, from the locked files.
#
#   scripts/install.sh               the environments that production needs
#   scripts/install.sh local test    just these
#
# Environments are made in parallel. One that is up to date is skipped; one that was interrupted is
# made anew. SLUICE_VENVS names another folder, SLUICE_PYTHON an interpreter.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venvs=${SLUICE_VENVS:-$root/.venvs}
production=(airflow dbt singer tap-postgres target-snowflake)

fail() {
  echo "install: $1" >&2
  exit 1
}

require_room() {
  local free
  free=$(df -Pm "$venvs" | awk 'NR == 2 {print $4}')
  ((free >= 300)) || fail "the disk is full: $venvs has $free MB left; free about 2 GB, then run the same command again"
}

find_python() {
  local candidate
  for candidate in ${SLUICE_PYTHON:+"$SLUICE_PYTHON"} python3.12 python3.13 python3.11 python3 python; do
    if "$candidate" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      "$candidate" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  fail "no Python 3.11, 3.12 or 3.13 with venv found; install one, or name it: SLUICE_PYTHON=/path/to/python3.12"
}

find_uv() {
  if command -v uv >/dev/null; then
    command -v uv
    return
  fi
  if ! "$venvs/uv/bin/uv" --version >/dev/null 2>&1; then
    require_room
    {
      rm -rf "$venvs/uv" && "$python" -m venv "$venvs/uv" &&
        "$venvs/uv/bin/python" -m pip install --quiet --disable-pip-version-check uv
    } >"$venvs/uv.log" 2>&1 ||
      fail "uv cannot be installed ($(tail -n 1 "$venvs/uv.log")); check the network, then run the same command again"
  fi
  echo "$venvs/uv/bin/uv"
}

make_environment() {
  local name=$1 lock=$root/requirements/$1.txt overrides=$root/requirements/$1.overrides.txt
  local folder=$venvs/$1 log=$venvs/$1.log stamp
  local options=(--quiet --python "$folder" -r "$lock")
  [[ -f $lock ]] || fail "$lock: no such file; known environments: $(cd "$root/requirements" && echo *.in | sed 's/\.in//g')"
  [[ -f $overrides ]] && options+=(--override "$overrides")
  [[ -n ${SLUICE_COMPILE:-} ]] && options+=(--compile-bytecode)
  stamp=$(cat "$lock" "$root/requirements/$1".overrides.txt 2>/dev/null | cksum || true)
  stamp="$stamp $python $folder"
  [[ "$(cat "$folder/.complete" 2>/dev/null)" == "$stamp" ]] && return
  local started=$SECONDS
  rm -rf "$folder"
  require_room
  if { "$uv" venv --quiet --python "$python" "$folder" && "$uv" pip install "${options[@]}"; } >"$log" 2>&1; then
    echo "$stamp" >"$folder/.complete"
    echo "install: $name in $((SECONDS - started)) s" >&2
  elif grep -qi 'no space left' "$log"; then
    fail "$name: the disk is full; free about 2 GB, then run the same command again"
  elif grep -qiE 'dns|connect|network|timed out|tls' "$log"; then
    fail "$name: the package index cannot be reached; check the network or UV_DEFAULT_INDEX, then run the same command again ($log)"
  else
    fail "$name: $(grep -m 1 -iE 'error|×' "$log" || tail -n 1 "$log"); the whole log is $log"
  fi
}

mkdir -p "$venvs" || fail "$venvs cannot be made; is the folder writable?"
python=$(find_python)
uv=$(find_uv)
if command -v flock >/dev/null; then
  exec 9>"$venvs/.lock"
  flock --wait 600 9 || fail "another install has held $venvs/.lock for 10 minutes; end it, then run the same command again"
fi
if [[ $# -eq 0 ]]; then set -- "${production[@]}"; fi
jobs=()
for name in "$@"; do
  make_environment "$name" &
  jobs+=($!)
done
status=0
for job in "${jobs[@]}"; do wait "$job" || status=1; done
exit "$status"
