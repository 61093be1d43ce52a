#!/usr/bin/env bash
# A local stand-in as a compose service: its environment, its server, and the shop's rows.
#
#   scripts/serve_local.sh postgres | snowflake
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
name=$1
scripts/install.sh local
python=${SLUICE_VENVS:-$PWD/.venvs}/local/bin/python
case $name in
  postgres) port=5432 ;;
  snowflake) port=58085 ;;
  *)
    echo "serve_local: $name: expected postgres or snowflake" >&2
    exit 1
    ;;
esac
"$python" -m "include.local.$name" --data "/data/$name" --port "$port" --host "$(hostname -i)" &
server=$!
trap 'kill "$server"; wait "$server"' TERM INT
if [[ $name == postgres ]]; then "$python" -m include.local.shop_data fill --port "$port" --host "$(hostname -i)"; fi
wait "$server"
