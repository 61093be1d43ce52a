#!/usr/bin/env bash
# A local stand-in as a compose service: its environment, its server, and the sample's rows.
#
#   scripts/serve_local.sh postgres | snowflake
#
# It listens on 127.0.0.1; the service shares its network with the scheduler, whose tasks need it.
# SLUICE_DATA names the folder for what it keeps, SLUICE_USER who it runs as where root starts it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
data=${SLUICE_DATA:-/data}
user=${SLUICE_USER:-1000}
case ${1:-} in
  postgres) port=${SLUICE_POSTGRES_PORT:-55432} ;;
  snowflake) port=${SLUICE_SNOWFLAKE_PORT:-58085} ;;
  *)
    echo "serve_local: '${1:-}': expected postgres or snowflake" >&2
    exit 1
    ;;
esac
export SLUICE_VENVS=${SLUICE_VENVS:-$PWD/.venvs} HOME=$data PYTHONPATH=$PWD PYTHONDONTWRITEBYTECODE=1
if [[ $(id -u) == 0 && $user != 0 ]]; then # Postgres refuses to run as root
  mkdir -p "$data" "$SLUICE_VENVS"
  chown "$user:$user" "$data" "$SLUICE_VENVS"
  exec setpriv --reuid="$user" --regid="$user" --clear-groups "${BASH_SOURCE[0]}" "$@"
fi
scripts/install.sh local
python=$SLUICE_VENVS/local/bin/python
"$python" -m "include.local.$1" --data "$data/$1" --port "$port" &
server=$!
trap 'kill "$server"; wait "$server"' TERM INT
if [[ $1 == postgres && -f include/sources/shop.yml ]]; then
  for _ in {1..60}; do
    "$python" -m include.local.shop_data fill --port "$port" && break
    kill -0 "$server" || break
    sleep 1
  done
fi
wait "$server"
