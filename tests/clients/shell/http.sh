#!/usr/bin/env bash
# The plain HTTP endpoints and the API as JSON, with curl.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

url=$INTEROP_SCHEME://$INTEROP_ENDPOINT
secrets=()
if [[ ${INTEROP_CACERT:-} ]]; then secrets=(--cacert "$INTEROP_CACERT" --cert "$INTEROP_CERT" --key "$INTEROP_KEY"); fi

# A token goes with each call, if somebody has to say who they are.
if [[ ${INTEROP_USER:-} ]]; then
    login=$(curl --silent --fail --max-time 5 "${secrets[@]}" --data "{\"name\":\"$INTEROP_USER\",\"password\":\"$INTEROP_PASSWORD\"}" "$url/v3/auth/authenticate")
    token=${login##*\"token\":\"}
    secrets+=(--header "Authorization: ${token%%\"*}")
fi

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

# post PATH BODY
post() {
    fetch --data "$2" "$url/v3/$1"
}

# Keys and values in base64: foo, bar.
json_puts_and_gets() {
    local answer
    answer=$(post kv/put '{"key":"Zm9v","value":"YmFy"}')
    [[ $answer =~ ^\{\"header\":\{\"cluster_id\":\"[0-9]+\",\ ?\"member_id\":\"[0-9]+\",\ ?\"revision\":\"[0-9]+\" ]] || fail "got $answer"
    answer=$(post kv/range '{"key":"Zm9v"}')
    contains "the pair" '"value":"YmFy"' "$answer"
    contains "the count" '"count":"1"' "$answer"
    answer=$(post kv/txn '{"compare":[{"key":"Zm9v","target":"VALUE","value":"YmFy"}],"success":[{"request_delete_range":{"key":"Zm9v"}}]}')
    contains "the transaction" '"succeeded":true' "$answer"
    contains "what it deleted" '"deleted":"1"' "$answer"
}

json_refuses_with_a_status() {
    local answer
    same "status code" 400 "$(code --data '{"key":"Zm9v","revision":"99999999"}' "$url/v3/kv/range")"
    same "of a path that is none" 404 "$(code --data '{}' "$url/v3/nowhere")"
    same "of another method" 501 "$(code "$url/v3/kv/range")"
    answer=$(curl --silent --max-time 5 "${secrets[@]}" --data '{"ID":"1"}' "$url/v3/lease/revoke")
    contains "the text" '"message":"etcdserver: requested lease not found"' "$answer"
}

# A line for each reply, until the client leaves.
json_watches() {
    local heard=$INTEROP_DIR/watched watcher
    curl --silent --no-buffer --max-time 60 "${secrets[@]}" --data '{"create_request":{"key":"dw=="}}' "$url/v3/watch" >"$heard" &
    watcher=$!
    await 10 "the watch" grep --quiet '"created":true' "$heard"
    post kv/put '{"key":"dw==","value":"MQ=="}' >"$INTEROP_DIR/put"
    await 10 "the event" grep --quiet '"value":"MQ=="' "$heard"
    kill "$watcher"
    same "lines" 2 "$(grep --count '^{"result":{' "$heard")"
}

tests \
    "the API as JSON: put, range, txn" json_puts_and_gets \
    "the API as JSON: refusals" json_refuses_with_a_status \
    "the API as JSON: a watch" json_watches \
    "/health is true" health_is_true \
    "/version names the server and the cluster" version_names_server_and_cluster \
    "an unknown path is 404" unknown_paths_are_not_found
