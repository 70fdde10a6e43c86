#!/usr/bin/env bash
# Real clients against a real server: etcdctl, etcd itself (backups that go to and fro), Python's etcd3, aetcd, etcd3gw and the library of Prometheus, Node's etcd3, Rust's etcd-client, Java's jetcd,
# etcd's own Go client, and curl.
#
#   tests/interop.sh                          all of them, against target/debug/henge
#   tests/interop.sh etcdctl node-etcd3       only these
#   HENGE_BIN=/usr/bin/etcd tests/interop.sh  against another server, to check the tests themselves
#   HENGE_VIA=proxy tests/interop.sh          through a `henge proxy` before the server; HENGE_VIA=proxy,copy: and another before that, which copies all keys
#                                             (also before etcd, by HENGE_BIN; then the program of the proxies is HENGE_PROXY_BIN, or target/debug/henge)
#   HENGE_TLS=yes tests/interop.sh            with TLS, and certificates of clients (curl, etcdctl, Python's etcd3 and etcd3gw, Java, and Go)
#   HENGE_AUTH=yes tests/interop.sh           with authentication, as root (curl, etcdctl, Python's etcd3gw, Java, and Go); with HENGE_TLS=yes both
#
# One line a test, and a sum at the end; exits with 1 unless all passed. What was installed, the servers' data and all logs
# stay in target/interop.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
clients=$root/tests/clients
work=$root/target/interop
all=(http etcdctl backup python-etcd3 python-aetcd python-etcd3gw python-prometheus node-etcd3 rust-etcd-client java-jetcd go-clientv3)
# Those that know how to show a certificate here.
[[ ${HENGE_TLS:-} ]] && all=(http etcdctl python-etcd3 python-etcd3gw python-prometheus java-jetcd go-clientv3)
# Those that know how to say who they are.
[[ ${HENGE_AUTH:-} ]] && all=(http etcdctl python-etcd3gw java-jetcd go-clientv3)
passed=0
failed=0
suite=
command=()

say() {
    echo "interop.sh: $*" >&2
}

# Makes sure that program (or file) $1 is there, from Debian's packages $2...
need() {
    local program=$1
    shift
    [[ -e $program ]] || command -v "$program" >/dev/null && return
    if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
        say "missing: $program (on Debian: apt-get install $*)"
        exit 2
    fi
    say "installing $*"
    if ! { apt-get update && apt-get install --yes --no-install-recommends "$@"; } >"$work/apt.log" 2>&1; then
        say "could not install $*; see $work/apt.log"
        exit 2
    fi
}

# Runs "$2..." unless it already ran for the present content of file $1; its output goes to a log.
once_for() {
    local pins=$1 stamp
    shift
    stamp=$work/$(basename "$pins").$(sha256sum "$pins" | cut -c1-16)
    [[ -f $stamp ]] && return
    if ! "$@" >"$work/install.log" 2>&1; then
        tail -n 20 "$work/install.log" >&2
        say "could not install what $pins names; see $work/install.log"
        exit 2
    fi
    touch "$stamp"
}

# One environment for each client: the two cannot agree on a protobuf.
install_python() {
    need python3 python3
    # Debian ships venv without ensurepip unless python3-venv is there.
    python3 -c 'import ensurepip, venv' 2>/dev/null || need 'python3 -m ensurepip' python3-venv
    once_for "$clients/python/requirements-$1.txt" make_venv "$1"
}

make_venv() {
    python3 -m venv --clear "$work/python-$1" &&
        "$work/python-$1/bin/pip" install --disable-pip-version-check --requirement "$clients/python/requirements-$1.txt"
}

install_node() {
    need node nodejs
    need npm npm
    once_for "$clients/node/package-lock.json" npm_ci
    # Node looks for packages beside the program, so the program goes where they were installed.
    cp "$clients"/node/*.mjs "$work/node/"
}

npm_ci() {
    mkdir -p "$work/node" &&
        cp "$clients/node/package.json" "$clients/node/package-lock.json" "$work/node/" &&
        npm ci --prefix "$work/node" --ignore-scripts --no-audit --no-fund
}

install_rust() {
    need protoc protobuf-compiler
    # What the client's definitions import; Debian only recommends it together with the compiler.
    need /usr/include/google/protobuf/descriptor.proto libprotobuf-dev
    if ! (cd "$root" && cargo build --quiet --locked --package henge-interop) >"$work/cargo.log" 2>&1; then
        tail -n 20 "$work/cargo.log" >&2
        say "could not build henge-interop; see $work/cargo.log"
        exit 2
    fi
}

# Debian's Go is too old for this client, and Go would fetch a newer one by itself: without a recent Go its tests are left out.
has_go() {
    (cd "$clients/go" && GOTOOLCHAIN=local go list -m) >/dev/null 2>&1
}

install_go() {
    if ! (cd "$clients/go" && GOTOOLCHAIN=local go build -o "$work/go-clientv3" .) >"$work/go.log" 2>&1; then
        tail -n 20 "$work/go.log" >&2
        say "could not build tests/clients/go; see $work/go.log"
        exit 2
    fi
}

# Maven fetches the client and all that it needs. Without Java, Maven or a way to its repository the tests of Java are left out.
has_java() {
    command -v java >/dev/null && command -v mvn >/dev/null && (install_java)
}

install_java() {
    once_for "$clients/java/pom.xml" mvn_fetch && once_for "$clients/java/src/main/java/Tests.java" mvn_compile
}

mvn_fetch() {
    mkdir -p "$work/java" && cp "$clients/java/pom.xml" "$work/java/" &&
        mvn --batch-mode --quiet --file "$work/java/pom.xml" dependency:copy-dependencies
}

mvn_compile() {
    cp -r "$clients/java/src" "$work/java/" && mkdir -p "$work/java/classes" &&
        javac -d "$work/java/classes" -classpath "$work/java/target/dependency/*" "$work"/java/src/main/java/*.java
}

install() {
    need curl curl
    [[ ${HENGE_TLS:-} ]] && need openssl openssl
    need ps procps
    case $1 in
        http) ;;
        etcdctl)
            need etcdctl etcd-client
            need jq jq
            ;;
        backup)
            need etcdctl etcd-client
            need etcd etcd-server
            need jq jq
            if [[ ! -x $HENGECTL_BIN || ! -x $(dirname "$HENGECTL_BIN")/henge ]]; then
                (cd "$root" && cargo build --quiet --locked --bins)
            fi
            ;;
        python-*) install_python "${1#python-}" ;;
        node-*) install_node ;;
        rust-*) install_rust ;;
        java-*) install_java ;;
        go-*) install_go ;;
    esac
}

# Sets `command` to what runs the tests of $1.
choose_command() {
    case $1 in
        http | etcdctl | backup) command=(bash "$clients/shell/$1.sh") ;;
        python-*) command=("$work/$1/bin/python" "$clients/python/test_${1#python-}.py") ;;
        node-*) command=(node "$work/node/test.mjs") ;;
        go-*) command=("$work/go-clientv3") ;;
        java-*) command=(java -classpath "$work/java/classes:$work/java/target/dependency/*" Tests) ;;
        rust-*) command=("${CARGO_TARGET_DIR:-$root/target}/debug/henge-interop") ;;
    esac
}

server() {
    INTEROP_DIR=$work/run/$suite bash "$clients/server.sh" "$@"
}

stop_server() {
    if [[ $suite && -f $work/run/$suite/pid ]]; then
        server kill 2>/dev/null || true
    fi
}

count() {
    grep --count "^$1 " "$work/run/$suite/report" || true
}

# Prints a line for a failure that no test could report itself.
broken() {
    echo "FAIL $suite  $*"
    failed=$((failed + 1))
}

run() {
    suite=$1
    local state=$work/run/$suite status=0
    rm -rf "$state"
    mkdir -p "$state"
    if ! server start; then
        broken "the server starts"
        stop_server
        return
    fi
    export INTEROP_DIR=$state INTEROP_SERVER=$clients/server.sh INTEROP_CLIENT=$suite INTEROP_ENDPOINT
    INTEROP_ENDPOINT=$(server url)
    export INTEROP_SCHEME=http
    if [[ ${HENGE_TLS:-} ]]; then
        export INTEROP_SCHEME=https INTEROP_CACERT=$state/tls/ca.pem
        export INTEROP_CERT=$state/tls/client.pem INTEROP_KEY=$state/tls/client-key.pem
    fi
    [[ ${HENGE_AUTH:-} ]] && export INTEROP_USER=root INTEROP_PASSWORD=secret
    choose_command "$suite"
    timeout --kill-after=5 "${INTEROP_SECONDS:-300}" "${command[@]}" 2>"$state/errors" | tee "$state/report" || status=$?
    passed=$((passed + $(count ok)))
    failed=$((failed + $(count FAIL)))
    # A runner that dies between two tests has no line for it.
    if ((status != 0)) && (($(count FAIL) == 0)); then
        broken "the tests run to their end (exit code $status)"
    elif (($(count ok) + $(count FAIL) == 0)); then
        broken "there are tests"
    fi
    if ((status != 0)); then
        say "$suite: see $state/errors and $state/log"
    fi
    stop_server
}

main() {
    local chosen=("$@") name
    mkdir -p "$work/run"
    if ((${#chosen[@]} == 0)); then
        for name in "${all[@]}"; do
            case $name in
                java-*) has_java || { say "left out: $name, for lack of Java, Maven, or a way to Maven's repository" && continue; } ;;
                go-*) has_go || { say "left out: $name, for lack of a recent Go" && continue; } ;;
            esac
            chosen+=("$name")
        done
    fi
    for name in "${chosen[@]}"; do
        if [[ " ${all[*]} " != *" $name "* ]]; then
            say "no such client: $name (there are: ${all[*]})"
            exit 2
        fi
    done
    if [[ -z ${HENGE_BIN:-} ]]; then
        HENGE_BIN=$root/target/debug/henge
        (cd "$root" && cargo build --quiet --locked --bin henge --bin hengectl)
    fi
    if [[ ${HENGE_VIA:-} && -z ${HENGE_PROXY_BIN:-} ]]; then
        HENGE_PROXY_BIN=$root/target/debug/henge
        (cd "$root" && cargo build --quiet --locked --bin henge)
    fi
    HENGE_BIN=$(realpath "$HENGE_BIN")
    HENGECTL_BIN=${HENGECTL_BIN:-$root/target/debug/hengectl}
    export HENGE_BIN HENGECTL_BIN HENGE_PROXY_BIN
    trap stop_server EXIT
    for name in "${chosen[@]}"; do
        install "$name"
    done
    for name in "${chosen[@]}"; do
        run "$name"
    done
    echo "interop: $passed passed, $failed failed"
    ((failed == 0))
}

main "$@"
