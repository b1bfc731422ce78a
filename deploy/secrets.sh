#!/usr/bin/env bash
# Makes the passwords that compose.yaml mounts, below deploy/secrets, which is never committed. A password that is there stays.
set -euo pipefail
umask 077
mkdir -p "$(dirname "$0")/secrets"
cd "$(dirname "$0")/secrets"

password() {
  [ -s "$1" ] || od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$1"
}

for database in main ai; do
  password "postgres-$database-password"
  printf 'postgresql://millwright:%s@postgres-%s:5432/millwright\n' "$(cat "postgres-$database-password")" "$database" >"postgres-$database-url"
done
# What the placeholders of debezium/outbox-connector.json stand for, in the worker's environment.
cat >connect.env <<TEXT
MILLWRIGHT_AI_HOST=postgres-ai
MILLWRIGHT_AI_PORT=5432
MILLWRIGHT_AI_USER=millwright
MILLWRIGHT_AI_PASSWORD=$(cat postgres-ai-password)
MILLWRIGHT_AI_NAME=millwright
TEXT
password grafana-password
# They are mounted one by one for users of the containers, who are no user here; nobody else passes this folder.
chmod 0444 postgres-*-password postgres-*-url grafana-password
