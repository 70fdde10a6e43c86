#!/usr/bin/env bash
# etcd's own command line client.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

export ETCDCTL_API=3 ETCDCTL_ENDPOINTS=$INTEROP_ENDPOINT
if [[ ${INTEROP_CACERT:-} ]]; then
    export ETCDCTL_CACERT=$INTEROP_CACERT ETCDCTL_CERT=$INTEROP_CERT ETCDCTL_KEY=$INTEROP_KEY
fi

if [[ ${INTEROP_USER:-} ]]; then export ETCDCTL_USER=$INTEROP_USER:$INTEROP_PASSWORD; fi

ctl() {
    etcdctl "$@"
}

json() {
    etcdctl --write-out=json "$@"
}

# What a failing command says on stderr.
refusal() {
    local text
    if text=$(etcdctl "$@" 2>&1 >/dev/null); then
        fail "succeeded: etcdctl $*"
    fi
    echo "$text"
}

# The revision after the write "$@".
revision_of() {
    json "$@" | jq .header.revision
}

# The keys of a JSON answer, as one line.
keys() {
    jq --raw-output '[.kvs[].key | @base64d] | join(" ")'
}

put_and_get() {
    same "put" OK "$(ctl put basic/a 1)"
    same "get" $'basic/a\n1' "$(ctl get basic/a)"
    same "the value" 1 "$(ctl get --print-value-only basic/a)"
    same "put with the previous pair" $'OK\nbasic/a\n1' "$(ctl put --prev-kv basic/a 2)"
    same "a missing key" "" "$(ctl get basic/missing)"
    local before answer
    before=$(json get basic/a | jq .header.revision)
    same "the revision of the next put" $((before + 1)) "$(revision_of put basic/a 3)"
    answer=$(json get basic/a | jq --compact-output '.kvs[0] | [.version, .mod_revision - .create_revision]')
    same "version, and changes since its creation" "[3,2]" "$answer"
    same "kept value" OK "$(ctl put --ignore-value --lease="$(lease_of 60)" basic/a)"
    same "value after the put without one" 3 "$(ctl get --print-value-only basic/a)"
}

ranges() {
    local key
    for key in r/a r/b r/c r/d s/a; do ctl put "$key" "value of $key" >/dev/null; done
    same "prefix" "r/a r/b r/c r/d" "$(json get --prefix r/ | keys)"
    same "limit" "r/a r/b" "$(json get --prefix --limit=2 r/ | keys)"
    same "more, and the count of all" "[true,4]" "$(json get --prefix --limit=2 r/ | jq --compact-output '[.more, .count]')"
    same "half open range" "r/b r/c" "$(json get r/b r/d | keys)"
    same "descending" "r/d r/c r/b r/a" "$(json get --prefix --order=DESCEND r/ | keys)"
    ctl put r/b newest >/dev/null
    same "by revision of change" "r/a r/c r/d r/b" "$(json get --prefix --sort-by=MODIFY r/ | keys)"
    same "by version, downwards" "r/b" "$(json get --prefix --sort-by=VERSION --order=DESCEND --limit=1 r/ | keys)"
    same "keys only" "[null]" "$(json get --keys-only r/a | jq --compact-output '[.kvs[0].value]')"
    same "from a key on" "r/d s/a" "$(json get --from-key r/d | jq '.kvs |= .[:2]' | keys)"
    same "serializable" "r/a" "$(json get --consistency=s r/a | keys)"
}

history() {
    local old
    old=$(revision_of put history/k old)
    ctl put history/k new >/dev/null
    ctl del history/k >/dev/null
    same "now" "" "$(ctl get history/k)"
    same "then" old "$(ctl get --print-value-only --rev="$old" history/k)"
}

deletes() {
    local key
    for key in d/a d/b d/c e/a; do ctl put "$key" v >/dev/null; done
    same "one" 1 "$(ctl del d/a)"
    same "again" 0 "$(ctl del d/a)"
    same "with what was there" $'1\nd/b\nv' "$(ctl del --prev-kv d/b)"
    ctl put d/b v >/dev/null
    same "prefix" 2 "$(ctl del --prefix d/)"
    same "what is left" "e/a" "$(json get d e/b | keys)"
    local before
    before=$(json get e/a | jq .header.revision)
    same "the revision of a deletion of nothing" "$before" "$(revision_of del d/a)"
}

transactions() {
    ctl put txn/k 1 >/dev/null
    same "success" $'SUCCESS\n\nOK' "$(printf 'value("txn/k") = "1"\n\nput txn/k 2\n\nput txn/k 3\n\n' | ctl txn)"
    same "after success" 2 "$(ctl get --print-value-only txn/k)"
    same "failure" $'FAILURE\n\nOK\n\ntxn/k\n3' "$(printf 'value("txn/k") = "1"\n\nput txn/k 2\n\nput txn/k 3\nget txn/k\n\n' | ctl txn)"
    same "after failure" 3 "$(ctl get --print-value-only txn/k)"
    local answer
    answer=$(printf 'create("txn/none") = "0"\nversion("txn/k") > "1"\nmod("txn/k") < "9999999"\n\nput txn/none a\ndel txn/k\n\n\n' | json txn |
        jq --compact-output '[.succeeded, (.responses | length), .responses[1].Response.ResponseDeleteRange.deleted]')
    same "three conditions, two steps" "[true,2,1]" "$answer"
}

# The id of a new lease of $1 seconds, in hex.
lease_of() {
    local text
    text=$(ctl lease grant "$1")
    [[ $text =~ ^lease\ ([0-9a-f]+)\ granted\ with\ TTL\(([0-9]+)s\)$ ]] || fail "grant says: $text"
    echo "${BASH_REMATCH[1]}"
}

leases() {
    local id answer
    id=$(lease_of 60)
    ctl put --lease="$id" lease/a 1 >/dev/null
    ctl put --lease="$id" lease/b 2 >/dev/null
    answer=$(ctl lease timetolive --keys "$id")
    # etcd names the keys in any order.
    [[ $answer =~ ^lease\ $id\ granted\ with\ TTL\(60s\),\ remaining\((60|59|58)s\),\ attached\ keys\(\[(lease/a\ lease/b|lease/b\ lease/a)\]\)$ ]] ||
        fail "$answer"
    contains "the list" "$id" "$(ctl lease list)"
    same "one renewal" "lease $id keepalived with TTL(60)" "$(ctl lease keep-alive --once "$id")"
    same "revocation" "lease $id revoked" "$(ctl lease revoke "$id")"
    same "keys after it" "" "$(ctl get --prefix lease/)"
    same "time to live after it" "lease $id already expired" "$(ctl lease timetolive "$id")"
}

lease_survives_a_restart() {
    local id
    id=$(lease_of 60)
    ctl put --lease="$id" lease/kept 1 >/dev/null
    server restart
    contains "the lease" "attached keys([lease/kept])" "$(ctl lease timetolive --keys "$id")"
    ctl lease revoke "$id" >/dev/null
    same "keys after revocation" "" "$(ctl get lease/kept)"
}

is_gone() {
    [[ -z $(ctl get "$1") ]]
}

lease_expiry() {
    ctl put --lease="$(lease_of 1)" lease/short v >/dev/null
    await 15 "the key goes with its lease" is_gone lease/short
}

lock_and_election() {
    same "within the lock" held "$(ctl lock interop/lock echo held)"
    same "after the lock" "" "$(ctl get --prefix interop/lock)"
    local pid
    # Not through ctl(): the process to be told to resign is etcdctl, not a shell around it.
    etcdctl elect interop/election me >"$INTEROP_DIR/elect" &
    pid=$!
    await 10 "the candidate wins" grep -qx me "$INTEROP_DIR/elect"
    same "the observer" me "$(timeout 10 etcdctl elect --listen interop/election | sed -n '2{p;q}')"
    kill "$pid"
    wait "$pid" || true
    await 10 "the winner resigns" is_gone_below interop/election/
}

is_gone_below() {
    [[ -z $(ctl get --prefix "$1") ]]
}

# Starts `etcdctl watch "$@"` with its output in $INTEROP_DIR/watch, and sets `watcher`.
start_watch() {
    : >"$INTEROP_DIR/watch"
    etcdctl watch "$@" >"$INTEROP_DIR/watch" 2>>"$INTEROP_DIR/watch.err" &
    watcher=$!
}

stop_watch() {
    kill "$watcher"
    wait "$watcher" || true
}

saw_lines() {
    (($(wc -l <"$INTEROP_DIR/watch") >= $1))
}

saw() {
    grep -qx -- "$1" "$INTEROP_DIR/watch"
}

watches() {
    # etcdctl does not say when it began; from a revision on, it does not matter.
    local from
    from=$(revision_of put w/a 1)
    ctl put w/b 2 >/dev/null
    ctl put x/other 3 >/dev/null
    ctl del w/a >/dev/null
    start_watch --prefix --prev-kv --rev="$from" w/
    await 10 "three events" saw_lines 11
    stop_watch
    same "events" "PUT w/a 1 PUT w/b 2 DELETE w/a 1 w/a" "$(grep -v '^$' "$INTEROP_DIR/watch" | paste -sd' ')"
}

watch_survives_a_restart() {
    local from
    from=$(revision_of put wr/k first)
    start_watch --prefix --rev="$from" wr/
    await 10 "the first event" saw first
    ctl put wr/k "before restart" >/dev/null
    server restart
    ctl put wr/k "after restart" >/dev/null
    await 30 "the event after the restart" saw "after restart"
    stop_watch
    same "events, each once" "PUT|wr/k|first|PUT|wr/k|before restart|PUT|wr/k|after restart" "$(paste -sd'|' "$INTEROP_DIR/watch")"
}

status_and_members() {
    local member address=$INTEROP_SCHEME://$INTEROP_ENDPOINT
    member=$(json member list | jq --compact-output '.members[] | [.name, .clientURLs, .isLearner // false]')
    same "members" "[\"interop\",[\"$address\"],false]" "$member"
    same "status" "[\"$INTEROP_ENDPOINT\",true,true]" "$(json endpoint status |
        jq --compact-output '.[0] | [.Endpoint, .Status.leader == .Status.header.member_id, .Status.dbSize > 0]')"
    same "its revision" "$(json get x | jq .header.revision)" "$(json endpoint status | jq '.[0].Status.header.revision')"
    contains "health" "$INTEROP_ENDPOINT is healthy" "$(ctl endpoint health 2>&1)"
    same "alarms" "" "$(ctl alarm list)"
    contains "hash of the data" "$INTEROP_ENDPOINT" "$(ctl endpoint hashkv)"
    contains "defragmentation" "Finished defragmenting" "$(ctl defrag 2>&1)"
}

errors() {
    contains "no key" "etcdserver: key is not provided" "$(refusal put '' v)"
    contains "unknown lease" "etcdserver: requested lease not found" "$(refusal put --lease=123abc k v)"
    contains "revocation of an unknown lease" "etcdserver: requested lease not found" "$(refusal lease revoke 123abc)"
    contains "value kept for a missing key" "etcdserver: key not found" "$(refusal put --ignore-value errors/none)"
    contains "future revision" "etcdserver: mvcc: required revision is a future revision" "$(refusal get --rev=1000000 k)"
    contains "same key twice" "etcdserver: duplicate key given in txn request" "$(printf '\nput a 1\nput a 2\n\n\n' | refusal txn)"
}

compaction() {
    local old new
    old=$(revision_of put compact/k old)
    new=$(revision_of put compact/k new)
    same "compaction" "compacted revision $new" "$(ctl compaction --physical "$new")"
    contains "read below" "etcdserver: mvcc: required revision has been compacted" "$(refusal get --rev="$old" compact/k)"
    same "read at" new "$(ctl get --print-value-only --rev="$new" compact/k)"
    contains "again" "etcdserver: mvcc: required revision has been compacted" "$(refusal compaction "$old")"
    contains "future" "etcdserver: mvcc: required revision is a future revision" "$(refusal compaction 1000000)"
    contains "watch below" "required revision has been compacted" "$(timeout 10 etcdctl watch --rev="$old" compact/k 2>&1 || true)"
}

tests \
    "put and get" put_and_get \
    "ranges: prefix, limit, order, from a key on" ranges \
    "get at an old revision" history \
    "deletes" deletes \
    "transactions: success, failure, conditions" transactions \
    "leases: grant, time to live, renewal, revocation" leases \
    "a lease and its keys survive a restart" lease_survives_a_restart \
    "lease expiry removes keys" lease_expiry \
    "lock and election" lock_and_election \
    "watch: prefix, history, previous pair" watches \
    "watch survives a restart" watch_survives_a_restart \
    "status, members, health, alarms, hash, defragmentation" status_and_members \
    "errors by their texts" errors \
    "compaction, and reads below it" compaction
