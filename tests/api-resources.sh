#!/usr/bin/env bash
# Writes specs/packs/api-resources.txt anew: what a Kubernetes API server serves, all versions and alpha features included,
# by its own OpenAPI document, and the rule of the pack `sensitive-api` that each request falls under.
# The API server is that of tests/cluster, by itself beside an etcd of its own. It needs no root, and leaves nothing running.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset HTTP_PROXY HTTPS_PROXY ALL_PROXY http_proxy https_proxy all_proxy # everything is on this machine

table=specs/packs/api-resources.txt
etcd=http://127.0.0.1:23579
port=27543
work=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; wait; rm -rf "$work"' EXIT

tests/cluster/cluster build >&2
programs=$(tests/cluster/cluster programs)
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$work/accounts.key"
openssl pkey -in "$work/accounts.key" -pubout -out "$work/accounts.pub"
token=$(openssl rand -hex 16)
(umask 077 && echo "$token,reader,reader,system:masters" > "$work/tokens.csv")
PATH=$PATH:/usr/sbin:/sbin etcd --data-dir "$work/etcd" --unsafe-no-fsync --listen-client-urls $etcd \
  --advertise-client-urls $etcd --listen-peer-urls http://127.0.0.1:23580 &> "$work/etcd.log" &
"$programs/kube-apiserver" --etcd-servers $etcd --bind-address 127.0.0.1 --secure-port $port --cert-dir "$work" \
  --advertise-address 127.0.0.1 --endpoint-reconciler-type none --service-cluster-ip-range 10.96.0.0/16 \
  --service-account-issuer https://kubernetes.default.svc --service-account-key-file "$work/accounts.pub" \
  --service-account-signing-key-file "$work/accounts.key" --token-auth-file "$work/tokens.csv" --authorization-mode RBAC \
  --runtime-config api/all=true --feature-gates AllAlpha=true,AllBeta=true &> "$work/kube-apiserver.log" &
server=$!

ask() { curl --silent --fail --insecure --max-time 30 --header "Authorization: Bearer $token" "https://127.0.0.1:$port$1"; }
until ask /readyz > /dev/null; do
  if ! kill -0 $server 2> /dev/null || ((SECONDS > 120)); then
    tail -n 5 "$work/kube-apiserver.log" "$work/etcd.log" >&2
    echo "the API server did not get ready" >&2
    exit 1
  fi
  sleep 0.2
done
version=$(ask /version | sed -nE 's/.*"gitVersion": "([^"]+)".*/\1/p')
ask /openapi/v2 > "$work/openapi.json"
cargo run --quiet --package knark-specs --example api-resources -- "$version" < "$work/openapi.json" > "$work/table"
mv "$work/table" $table
echo "$table: $(grep --count --invert-match '^#' $table) lines of Kubernetes $version" >&2
