#!/usr/bin/env bash
# Snapshots and data directories that go from henge to etcd and back: the same keys, leases and hash on the other side.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

: "${HENGECTL_BIN:?the hengectl that is tested}"
# Another etcd than Debian's: its server, and its etcdutl, which since 3.7 alone knows `snapshot status` and `snapshot restore`.
ETCD_BIN=${ETCD_BIN:-$(command -v etcd)}
ETCDUTL_BIN=${ETCDUTL_BIN:-etcdctl}
HENGE=$(dirname "$HENGECTL_BIN")/henge
export ETCDCTL_API=3

# on ADDRESS COMMAND...: etcdctl, which refuses to have the address twice.
on() {
    ETCDCTL_ENDPOINTS=$1 etcdctl "${@:2}"
}

# at DIR COMMAND...: the server that lives in DIR.
at() {
    INTEROP_DIR=$1 "$INTEROP_SERVER" "${@:2}"
}

# As what client ADDRESS says: revision, compacted revision, hash.
hash_at() {
    on "$1" endpoint hashkv --write-out=json |
        jq --compact-output '.[0].HashKV | [.header.revision, .compact_revision, .hash]'
}

# A folder for a server, with ports that nobody uses.
place() {
    local dir=$INTEROP_DIR/$1 name
    mkdir -p "$dir"
    for name in client-port peer-port; do
        # Not in the range of a client's own sockets.
        until echo "$((RANDOM % 12000 + 20000))" >"$dir/$name" && ! (exec 3<>"/dev/tcp/127.0.0.1/$(<"$dir/$name")") 2>/dev/null; do
            :
        done
    done
    echo "$dir"
}

peer_url() {
    echo "http://127.0.0.1:$(<"$1/peer-port")"
}

# Flags of the restored member, which are those that server.sh starts it with.
restored_as() {
    echo "--name=interop --initial-cluster=interop=$(peer_url "$1") --initial-advertise-peer-urls=$(peer_url "$1") --data-dir=$1/data"
}

# Everything that a store can hold of history, at client address $1.
fill() {
    local i lease
    lease=$(on "$1" lease grant 3600 | cut -d' ' -f2)
    for i in {1..20}; do
        on "$1" put "backup/$i" "first $i"
        on "$1" put "backup/$i" "second $i"
    done >/dev/null
    on "$1" put backup/leased x --lease="$lease" >/dev/null
    on "$1" del backup/3 >/dev/null
    head -c 300000 /dev/zero | tr '\0' z | on "$1" put backup/large >/dev/null
    on "$1" compaction "$(on "$1" get backup/9 --write-out=json | jq .kvs[0].mod_revision)" >/dev/null
    on "$1" put backup/last x >/dev/null
}

etcd_restores_what_henge_saved() {
    local dir flags
    fill "$INTEROP_ENDPOINT"
    on "$INTEROP_ENDPOINT" snapshot save "$INTEROP_DIR/henge.db" >/dev/null 2>&1
    same "the status, as both tools have it" \
        "$("$ETCDUTL_BIN" snapshot status "$INTEROP_DIR/henge.db" --write-out=json | jq --compact-output '[.hash, .revision, .totalSize]')" \
        "$("$HENGECTL_BIN" snapshot status "$INTEROP_DIR/henge.db" --write-out=json | jq --compact-output '[.hash, .revision, .totalSize]')"
    dir=$(place etcd-restored)
    read -ra flags <<<"$(restored_as "$dir")"
    "$ETCDUTL_BIN" snapshot restore "$INTEROP_DIR/henge.db" "${flags[@]}" >/dev/null 2>&1
    HENGE_BIN=$ETCD_BIN at "$dir" start
    same "revisions and hash" "$(hash_at "$INTEROP_ENDPOINT")" "$(hash_at "$(at "$dir" url)")"
    same "leases" "$(on "$INTEROP_ENDPOINT" lease list)" "$(on "$(at "$dir" url)" lease list)"
    same "a write there" OK "$(on "$(at "$dir" url)" put backup/new x)"
    at "$dir" stop
}

henge_restores_what_etcd_saved() {
    local etcd dir flags
    etcd=$(place etcd)
    HENGE_BIN=$ETCD_BIN at "$etcd" start
    fill "$(at "$etcd" url)"
    on "$(at "$etcd" url)" snapshot save "$INTEROP_DIR/etcd.db" >/dev/null 2>&1
    dir=$(place henge-restored)
    read -ra flags <<<"$(restored_as "$dir")"
    "$HENGECTL_BIN" snapshot restore "$INTEROP_DIR/etcd.db" "${flags[@]}" --bump-revision 0 >/dev/null
    HENGE_BIN=$HENGE at "$dir" start
    same "revisions and hash" "$(hash_at "$(at "$etcd" url)")" "$(hash_at "$(at "$dir" url)")"
    same "leases" "$(on "$(at "$etcd" url)" lease list)" "$(on "$(at "$dir" url)" lease list)"
    same "the key of the lease" "x" "$(on "$(at "$dir" url)" get --print-value-only backup/leased)"
    at "$dir" stop
    at "$etcd" stop
}

# What is known of users at client address $1, once auth is enabled: which of them may do what, and who knows which password.
users_at() {
    hash_at "$1"
    on "$1" user get alice
    on "$1" role get readers
    ETCDCTL_USER=alice:secret on "$1" get backup/9 --print-value-only
    { ETCDCTL_USER=alice:secret on "$1" put backup/9 x 2>&1 || true; } | grep --only-matching 'permission denied'
}

make_users() {
    on "$1" user add root:root
    on "$1" user add alice:secret
    on "$1" user grant-role root root
    on "$1" role add readers
    on "$1" role grant-permission readers read backup/ backup0
    on "$1" user grant-role alice readers
    on "$1" auth enable
}

users_and_roles_go_to_henge_and_back() {
    local etcd dir flags expected ETCDCTL_USER
    etcd=$(place etcd-users)
    HENGE_BIN=$ETCD_BIN at "$etcd" start
    fill "$(at "$etcd" url)"
    make_users "$(at "$etcd" url)" >/dev/null
    export ETCDCTL_USER=root:root
    expected=$(users_at "$(at "$etcd" url)")
    on "$(at "$etcd" url)" snapshot save "$INTEROP_DIR/users.db" >/dev/null 2>&1
    at "$etcd" stop
    dir=$(place henge-users)
    read -ra flags <<<"$(restored_as "$dir")"
    "$HENGECTL_BIN" snapshot restore "$INTEROP_DIR/users.db" "${flags[@]}" --bump-revision 0 >/dev/null
    HENGE_BIN=$HENGE at "$dir" start
    same "users in henge" "$expected" "$(users_at "$(at "$dir" url)")"
    on "$(at "$dir" url)" snapshot save "$INTEROP_DIR/users-back.db" >/dev/null 2>&1
    at "$dir" stop
    dir=$(place etcd-users-back)
    read -ra flags <<<"$(restored_as "$dir")"
    "$ETCDUTL_BIN" snapshot restore "$INTEROP_DIR/users-back.db" "${flags[@]}" >/dev/null 2>&1
    HENGE_BIN=$ETCD_BIN at "$dir" start
    same "users in etcd again" "$expected" "$(users_at "$(at "$dir" url)")"
    at "$dir" stop
}

a_restored_store_does_not_go_back_in_time() {
    local dir flags
    dir=$(place henge-bumped)
    read -ra flags <<<"$(restored_as "$dir")"
    "$HENGECTL_BIN" snapshot restore "$INTEROP_DIR/etcd.db" "${flags[@]}" >/dev/null
    HENGE_BIN=$HENGE at "$dir" start
    local revision
    revision=$(on "$(at "$dir" url)" get backup/1 --write-out=json | jq .header.revision)
    ((revision > 1000000000)) || fail "revision $revision"
    contains "an old revision" "required revision has been compacted" \
        "$(on "$(at "$dir" url)" get backup/1 --rev=5 2>&1 || true)"
    at "$dir" stop
}

a_killed_etcd_member_goes_on_as_henge() {
    local etcd dir before running last ETCDCTL_USER
    etcd=$(place etcd-killed)
    # The database is held back: most of what follows is in the log alone.
    HENGE_BIN=$ETCD_BIN ETCD_BACKEND_BATCH_INTERVAL=600s at "$etcd" start
    fill "$(at "$etcd" url)"
    on "$(at "$etcd" url)" put backup/tail 1 >/dev/null
    on "$(at "$etcd" url)" del backup/1 >/dev/null
    # Users, too; but etcd 3.4 has their passwords in its log.
    if ! "$ETCD_BIN" --version | grep --quiet 'Version: 3.4'; then
        make_users "$(at "$etcd" url)" >/dev/null
        export ETCDCTL_USER=root:root
        on "$(at "$etcd" url)" put backup/tail 2 >/dev/null
        ETCDCTL_USER=alice:secret on "$(at "$etcd" url)" put backup/tail 3 >/dev/null 2>&1 || true
    fi
    before="$(hash_at "$(at "$etcd" url)") $(on "$(at "$etcd" url)" member list | cut -d, -f1,3,4)"
    last=$(on "$(at "$etcd" url)" get --print-value-only backup/tail)
    running=$("$HENGECTL_BIN" import --data-dir "$etcd/data" --to "$etcd/imported" 2>&1 || true)
    contains "while etcd runs" "etcd is still running" "$running"
    at "$etcd" kill
    dir=$(place henge-imported)
    cp "$etcd"/*-port "$dir"
    "$HENGECTL_BIN" import --data-dir "$etcd/data" --to "$dir/data" >/dev/null
    HENGE_BIN=$HENGE at "$dir" start
    same "revisions, hash and members" "$before" \
        "$(hash_at "$(at "$dir" url)") $(on "$(at "$dir" url)" member list | cut -d, -f1,3,4)"
    same "the last write" "$last" "$(on "$(at "$dir" url)" get --print-value-only backup/tail)"
    at "$dir" stop
}

tests \
    "etcd restores what henge saved" etcd_restores_what_henge_saved \
    "henge restores what etcd saved" henge_restores_what_etcd_saved \
    "users and roles go to henge and back" users_and_roles_go_to_henge_and_back \
    "a restored store does not go back in time" a_restored_store_does_not_go_back_in_time \
    "a killed etcd member goes on as henge" a_killed_etcd_member_goes_on_as_henge
