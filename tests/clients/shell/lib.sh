# shellcheck shell=bash
# What the tests in bash share. The file that sources this defines functions, and ends with `tests "name" function ...`.
#
# A test is a function that runs in its own subshell with `set -e`: its first failing command, or `fail`, ends it.

fail() {
    echo "$*" >>"$INTEROP_DIR/reason"
    exit 1
}

# same WHAT EXPECTED ACTUAL
same() {
    [[ $2 == "$3" ]] || fail "$1: expected '$2', got '$3'"
}

# contains WHAT PART WHOLE
contains() {
    [[ $3 == *"$2"* ]] || fail "$1: expected '$2' within '$3'"
}

# await SECONDS WHAT COMMAND...: until the command holds.
await() {
    local deadline=$((SECONDS + $1)) seconds=$1 what=$2
    shift 2
    until "$@"; do
        ((SECONDS < deadline)) || fail "not within $seconds s: $what"
        sleep 0.05
    done
}

server() {
    "$INTEROP_SERVER" "$@"
}

tests() {
    local failures=0 status
    while (($#)); do
        rm -f "$INTEROP_DIR/reason"
        # Not in a condition: there `set -e` would mean nothing to the commands inside.
        set +e
        (set -e && "$2")
        status=$?
        set -e
        if ((status == 0)); then
            echo "ok   $INTEROP_CLIENT  $1"
        else
            echo "FAIL $INTEROP_CLIENT  $1"
            if [[ -f $INTEROP_DIR/reason ]]; then sed 's/^/     /' "$INTEROP_DIR/reason"; else echo "     a command ended with $status"; fi
            failures=$((failures + 1))
        fi
        shift 2
    done
    ((failures == 0))
}
