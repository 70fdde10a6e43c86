#!/usr/bin/env bash
# Starts and stops the one server that a client's tests run against. Every language calls this, so none needs its own.
#
#   server.sh start     start on the data directory that is there, or on a new one; returns once /health says true
#   server.sh stop      SIGTERM, and wait for the end
#   server.sh kill      SIGKILL, and wait for the end
#   server.sh restart   stop, then start: same data directory, same ports
#   server.sh url       the client address, host:port
#
# INTEROP_DIR holds the state (ports, pid, data, log); HENGE_BIN is the server's program. With HENGE_VIA=proxy clients speak to a
# `henge proxy` before the server, with HENGE_VIA=proxy,copy to a proxy before that one that copies all keys, and so on (HENGE_PROXY_BIN is
# their program).
# With HENGE_TLS=yes all of them speak TLS, and ask clients for certificates: INTEROP_DIR has tls/ca.pem, and tls/client.pem and
# tls/client-key.pem for clients.
# With HENGE_AUTH=yes authentication is enabled as soon as the server serves for the first time: root's password is secret.
# Proxies live through a restart of the server, which advertises the address that clients use.
set -euo pipefail

: "${INTEROP_DIR:?the directory of this server}"
: "${HENGE_BIN:?the program to start}"
START_SECONDS=30
STOP_SECONDS=20

die() {
    echo "server.sh: $*" >&2
    exit 1
}

# A port below the ephemeral range, so that no client's own socket takes it while the server is down.
free_port() {
    local port
    for _ in {1..100}; do
        port=$((RANDOM % 12000 + 20000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return
        fi
    done
    die "found no free port"
}

# Whether the process of a pid file runs. One that has ended but was not yet reaped does not count: some containers' first process
# never reaps.
alive() {
    local state
    [[ -f $1 ]] && state=$(ps -o stat= -p "$(<"$1")") && [[ $state != Z* ]]
}

running() {
    alive "$INTEROP_DIR/pid"
}

# Waits up to $1 seconds for the command that follows to hold.
await() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}

# Where clients and proxies find each other.
scheme() {
    if [[ ${HENGE_TLS:-} ]]; then echo https; else echo http; fi
}

# An authority, and what it signs: one certificate for servers, one for clients, and one for proxies, which name nobody.
certify() {
    local tls=$INTEROP_DIR/tls name
    [[ -f $tls/proxy.pem ]] && return
    mkdir -p "$tls"
    {
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/O=interop CA" \
            -keyout "$tls/ca-key.pem" -out "$tls/ca.pem"
        printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\n' >"$tls/names"
        for name in server client proxy; do
            case $name in proxy) subject=/O=proxy ;; *) subject=/CN=$name ;; esac
            openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$subject" \
                -keyout "$tls/$name-key.pem" -out "$tls/$name.csr"
            openssl x509 -req -in "$tls/$name.csr" -CA "$tls/ca.pem" -CAkey "$tls/ca-key.pem" -CAcreateserial -days 2 \
                -extfile "$tls/names" -out "$tls/$name.pem"
        done
    } >"$tls/log" 2>&1 || die "cannot make certificates; see $tls/log"
}

# Sets `serves` to the flags of whoever clients dial, and `dials` to those of proxies.
tls_flags() {
    local tls=$INTEROP_DIR/tls
    serves=()
    dials=()
    [[ ${HENGE_TLS:-} ]] || return 0
    certify
    serves=(--cert-file "$tls/server.pem" --key-file "$tls/server-key.pem" --client-cert-auth --trusted-ca-file "$tls/ca.pem")
    dials=(--cacert "$tls/ca.pem" --cert "$tls/proxy.pem" --key "$tls/proxy-key.pem")
}

healthy() {
    local answer tls=$INTEROP_DIR/tls secrets=()
    [[ ${HENGE_TLS:-} ]] && secrets=(--cacert "$tls/ca.pem" --cert "$tls/client.pem" --key "$tls/client-key.pem")
    answer=$(curl --silent --max-time 2 "${secrets[@]}" "$(scheme)://$(client_address)/health") && [[ $answer == *'"health":"true"'* ]]
}

# call PATH BODY: as JSON.
call() {
    local tls=$INTEROP_DIR/tls secrets=()
    [[ ${HENGE_TLS:-} ]] && secrets=(--cacert "$tls/ca.pem" --cert "$tls/client.pem" --key "$tls/client-key.pem")
    curl --silent --show-error --fail --max-time 5 "${secrets[@]}" --data "$2" "$(scheme)://$(address 0)/v3/auth/$1" >/dev/null
}

# From then on everybody has to say who they are. Once for a data directory.
enable_auth() {
    [[ ${HENGE_AUTH:-} && ! -f $INTEROP_DIR/auth ]] || return 0
    call user/add '{"name":"root","password":"secret"}'
    call role/add '{"name":"root"}'
    call user/grant '{"user":"root","role":"root"}'
    call enable '{}'
    touch "$INTEROP_DIR/auth"
}

healthy_or_gone() {
    ! running || healthy
}

stopped() {
    ! running
}

# How many proxies stand before the server.
proxies() {
    local words
    IFS=, read -ra words <<<"${HENGE_VIA:-}"
    echo "${#words[@]}"
}

# The address of the server (0), or of the proxy that stands so far before it.
address() {
    case $1 in
        0) echo "127.0.0.1:$(<"$INTEROP_DIR/client-port")" ;;
        *) echo "127.0.0.1:$(<"$INTEROP_DIR/proxy-$1-port")" ;;
    esac
}

client_address() {
    address "$(proxies)"
}

# Starts the proxies that do not run.
launch_proxies() {
    local at words copies serves dials
    tls_flags
    IFS=, read -ra words <<<"${HENGE_VIA:-}"
    for ((at = 1; at <= ${#words[@]}; at++)); do
        copies=()
        [[ ${words[at - 1]} == copy ]] && copies=(--cache-prefix=)
        alive "$INTEROP_DIR/proxy-$at-pid" && continue
        setsid "${HENGE_PROXY_BIN:?the program of the proxies}" proxy \
            --endpoints "$(scheme)://$(address $((at - 1)))" \
            --listen-client-urls "$(scheme)://$(address "$at")" "${copies[@]}" "${serves[@]}" "${dials[@]}" \
            </dev/null >>"$INTEROP_DIR/proxy-$at-log" 2>&1 &
        echo $! >"$INTEROP_DIR/proxy-$at-pid"
    done
}

end_proxies() {
    local file
    for file in "$INTEROP_DIR"/proxy-*-pid; do
        if alive "$file"; then kill -KILL "$(<"$file")"; fi
        rm -f "$file"
    done
}

launch() {
    local client peer serves dials
    tls_flags
    client="$(scheme)://$(address 0)"
    peer="http://127.0.0.1:$(<"$INTEROP_DIR/peer-port")"
    # A session of its own: an interrupt at the terminal reaches the tests, which then stop the server in order.
    setsid "$HENGE_BIN" \
        --name interop \
        --data-dir "$INTEROP_DIR/data" \
        --listen-client-urls "$client" \
        --advertise-client-urls "$(scheme)://$(client_address)" \
        "${serves[@]}" \
        --listen-peer-urls "$peer" \
        --initial-advertise-peer-urls "$peer" \
        --initial-cluster "interop=$peer" \
        </dev/null >>"$INTEROP_DIR/log" 2>&1 &
    echo $! >"$INTEROP_DIR/pid"
}

start() {
    running && die "already running"
    mkdir -p "$INTEROP_DIR"
    local fresh= at
    for _ in {1..3}; do
        if [[ ! -f $INTEROP_DIR/client-port ]]; then
            fresh=yes
            free_port >"$INTEROP_DIR/client-port"
            free_port >"$INTEROP_DIR/peer-port"
        fi
        for ((at = 1; at <= $(proxies); at++)); do
            [[ -f $INTEROP_DIR/proxy-$at-port ]] || free_port >"$INTEROP_DIR/proxy-$at-port"
        done
        launch
        launch_proxies
        await "$START_SECONDS" healthy_or_gone || die "not healthy after $START_SECONDS s; see $INTEROP_DIR/log"
        if running; then
            enable_auth || die "cannot enable authentication"
            return
        fi
        # Only before the first success may the ports change: somebody else may have taken one in between.
        [[ $fresh ]] || break
        end_proxies
        rm -rf "$INTEROP_DIR/client-port" "$INTEROP_DIR/peer-port" "$INTEROP_DIR"/proxy-*-port "$INTEROP_DIR/data"
    done
    tail -n 5 "$INTEROP_DIR/log" >&2
    die "the server ended at once; see $INTEROP_DIR/log"
}

end_with() {
    running || die "not running"
    kill "-$1" "$(<"$INTEROP_DIR/pid")"
    if ! await "$STOP_SECONDS" stopped; then
        kill -KILL "$(<"$INTEROP_DIR/pid")"
        die "still there $STOP_SECONDS s after SIG$1"
    fi
    rm "$INTEROP_DIR/pid"
}

case "${1:-}" in
    start) start ;;
    stop) end_proxies && end_with TERM ;;
    kill) end_proxies && end_with KILL ;;
    restart) end_with TERM && start ;;
    url) client_address ;;
    *) die "usage: server.sh start|stop|kill|restart|url" ;;
esac
