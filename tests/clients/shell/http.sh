#!/usr/bin/env bash
# The plain HTTP endpoints, with curl.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

url=http://$INTEROP_ENDPOINT

fetch() {
    curl --silent --show-error --fail --max-time 5 "$@"
}

code() {
    curl --silent --max-time 5 --output /dev/null --write-out '%{http_code}' "$@"
}

post() {
    fetch --data "$2" "$url/v3/$1"
}

health_is_true() {
    local answer
    answer=$(fetch "$url/health")
    # Newer servers add a reason after it.
    contains health '{"health":"true"' "$answer"
    same "status code" 200 "$(code "$url/health")"
}

version_names_server_and_cluster() {
    local answer
    answer=$(fetch "$url/version")
    [[ $answer =~ ^\{\"etcdserver\":\"3\.[0-9]+\.[0-9]+[^\"]*\",\"etcdcluster\":\"3\.[0-9]+\.[0-9]+\" ]] || fail "got $answer"
}

metrics_are_prometheus_text() {
    local answer
    answer=$(fetch "$url/metrics")
    contains "a type line" "# TYPE etcd_server_has_leader gauge" "$answer"
    grep -q '^etcd_server_has_leader 1$' <<<"$answer" || fail "no 'etcd_server_has_leader 1'"
    grep -q '^etcd_server_is_leader 1$' <<<"$answer" || fail "no 'etcd_server_is_leader 1'"
}

unknown_paths_are_not_found() {
    same "status code" 404 "$(code "$url/no/such/path")"
}

json_put_range_and_delete() {
    # Zm9v is foo, YmFy is bar, Zm9w is fop; int64 comes as text.
    contains "put" '"revision":"' "$(post kv/put '{"key":"Zm9v","value":"YmFy"}')"
    local answer
    answer=$(post kv/range '{"key":"Zm9v"}')
    contains "the pair" '"key":"Zm9v"' "$answer"
    contains "the pair" '"version":"1","value":"YmFy"' "$answer"
    contains "the count" '"count":"1"' "$answer"
    contains "the deletion" '"deleted":"1"' "$(post kv/deleterange '{"key":"Zm9v","range_end":"Zm9w"}')"
    answer=$(post kv/range '{"key":"Zm9v"}')
    [[ $answer != *kvs* && $answer != *count* ]] || fail "still there: $answer"
}

json_txn() {
    local answer
    post kv/put '{"key":"dHhu","value":"MQ=="}' >/dev/null
    answer=$(post kv/txn '{"compare":[{"target":"VALUE","key":"dHhu","value":"MQ=="}],
        "success":[{"request_put":{"key":"dHhu","value":"Mg=="}}],
        "failure":[{"request_range":{"key":"dHhu"}}]}')
    contains "the branch" '"succeeded":true' "$answer"
    answer=$(post kv/txn '{"compare":[{"target":"VALUE","key":"dHhu","value":"MQ=="}],
        "success":[{"request_put":{"key":"dHhu","value":"Mg=="}}],
        "failure":[{"request_range":{"key":"dHhu"}}]}')
    [[ $answer != *'"succeeded":true'* ]] || fail "the wrong branch: $answer"
    contains "the value read" '"value":"Mg=="' "$answer"
}

json_errors() {
    local answer
    answer=$(curl --silent --max-time 5 --write-out ' %{http_code}' --data '{"key":""}' "$url/v3/kv/put")
    contains "the text" 'etcdserver: key is not provided' "$answer"
    contains "the gRPC code" '"code":3' "$answer"
    contains "the HTTP code" ' 400' "$answer"
}

json_watch() {
    local answer
    # The stream stays open until curl gives up, so its end is not an error.
    answer=$(curl --silent --no-buffer --max-time 1 --data '{"create_request":{"key":"d2F0Y2g="}}' "$url/v3/watch" || true)
    contains "the first message" '"created":true' "$answer"
}

tests \
    "/health is true" health_is_true \
    "/version names the server and the cluster" version_names_server_and_cluster \
    "/metrics is Prometheus text" metrics_are_prometheus_text \
    "an unknown path is 404" unknown_paths_are_not_found \
    "JSON put, range and delete" json_put_range_and_delete \
    "JSON transaction, both branches" json_txn \
    "JSON error has text and codes" json_errors \
    "JSON watch is created" json_watch
