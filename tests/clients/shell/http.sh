#!/usr/bin/env bash
# The plain HTTP endpoints, with curl.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

url=$INTEROP_SCHEME://$INTEROP_ENDPOINT
secrets=()
if [[ ${INTEROP_CACERT:-} ]]; then secrets=(--cacert "$INTEROP_CACERT" --cert "$INTEROP_CERT" --key "$INTEROP_KEY"); fi

fetch() {
    curl --silent --show-error --fail --max-time 5 "${secrets[@]}" "$@"
}

code() {
    curl --silent --max-time 5 --output /dev/null --write-out '%{http_code}' "${secrets[@]}" "$@"
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

unknown_paths_are_not_found() {
    same "status code" 404 "$(code "$url/no/such/path")"
}

tests \
    "/health is true" health_is_true \
    "/version names the server and the cluster" version_names_server_and_cluster \
    "an unknown path is 404" unknown_paths_are_not_found
