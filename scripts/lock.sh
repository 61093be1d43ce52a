#!/usr/bin/env bash
# Resolve requirements/<environment>.in into <environment>.txt, for Python 3.11 to 3.13.
#
#   scripts/lock.sh airflow dbt       no index's address is written into a locked file
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
for name in "$@"; do
  options=(--quiet --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links --no-annotate)
  [[ -f requirements/$name.overrides.txt ]] && options+=(--override "requirements/$name.overrides.txt")
  case $name in
    test) options+=(--constraint requirements/local.txt) ;;
    test-airflow | bench) options+=(--constraint requirements/airflow.txt) ;;
  esac
  uv pip compile "${options[@]}" --custom-compile-command "make lock" "requirements/$name.in" -o "requirements/$name.txt"
  echo "locked requirements/$name.txt"
done
