#!/usr/bin/env bash
# Resolve requirements/<environment>.in into <environment>.txt, for Python 3.11 to 3.13.
#
#   scripts/lock.sh airflow dbt                          what is locked stays where it can
#   scripts/lock.sh --upgrade-package=requests airflow   options of uv's come first
#
# No index's address is written into a locked file.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
uv=$(command -v uv || echo "${SLUICE_VENVS:-.venvs}/uv/bin/uv")
given=()
while [[ ${1:-} == --* ]]; do
  given+=("$1")
  shift
done
for name in "$@"; do
  options=(${given[@]+"${given[@]}"} --quiet --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links --no-annotate)
  [[ -f requirements/$name.overrides.txt ]] && options+=(--override "requirements/$name.overrides.txt")
  case $name in
    test) options+=(--constraint requirements/local.txt) ;;
    browser) options+=(--constraint requirements/test.txt) ;;
    test-airflow | bench | openlineage) options+=(--constraint requirements/airflow.txt) ;;
  esac
  "$uv" pip compile "${options[@]}" --custom-compile-command "make lock" "requirements/$name.in" -o "requirements/$name.txt"
  echo "locked requirements/$name.txt"
done
