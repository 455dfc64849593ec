set -eu
LC_ALL=C
export LC_ALL
umask 077
root=${TUNE_ROOT:+$(cd -P "$TUNE_ROOT" && pwd)} || exit 1
PATH=${root:+$root/bin:}$PATH
# One for each network namespace; /run is empty after a boot.
undo_file=$root/run/tune-undo.$(readlink /proc/self/ns/net | tr -dc '[:digit:]').sh
written=0
optional=
finished=

fail() {
    echo "tune script: $*" >&2
    exit 1
}

# quote TEXT: the text as one word of a shell.
quote() {
    printf '%s\n' "$1" | sed "s/'/'\\\\''/g; 1s/^/'/; \$s/\$/'/"
}

# needs TOOL: it is there. That of this machine would change this machine, and nothing below TUNE_ROOT.
needs() {
    if [ -n "$root" ]; then
        [ -x "$root/bin/$1" ] || fail "TUNE_ROOT is set, and there is no $root/bin/$1; nothing was written"
    else
        command -v "$1" >/dev/null || fail "$1 is not installed; nothing was written"
        [ "$(id -u)" -eq 0 ] || fail "$1 needs root; nothing was written"
    fi
}

# made_for NAME [FILE VALUE]: the interface of this name is the one that this script was made for: its device
# is in this directory, or its address or ifindex is this. And /sys shows the network namespace that this
# shell is in, which it does not after "nsenter --net".
made_for() {
    files=$root/sys/class/net/$1
    [ -e "$files" ] || fail "there is no $1 here; nothing was written; run this as its head says"
    mark=$files/ifindex
    case ${2:-} in
        '') ;;
        device)
            is=$(cd -P "$files/device" 2>/dev/null && pwd) || is=
            case $is/ in
                "$root$3"/*) ;;
                *) fail "the device of $1 is not $3; nothing was written; run this as its head says" ;;
            esac
            ;;
        *)
            mark=$files/$2
            [ "$(cat "$mark" 2>/dev/null)" = "$3" ] ||
                fail "the $2 of $1 is not $3; nothing was written; run this as its head says"
            ;;
    esac
    if [ -z "$root" ] && command -v ip >/dev/null; then
        case $(ip -o link show dev "$1" 2>/dev/null) in
            "$(cat "$files/ifindex"): $1"[:@]*" $(grep -x '..:..:..:..:..:..' "$files/address")"*) ;;
            *) fail "$1 is another interface in /sys; nothing was written; use \"ip netns exec\"" ;;
        esac
    fi
    same "$mark"
}

# interrupt IRQ NAME: the number still belongs to the handler that it had when this script was made.
interrupt() {
    case ", $(eval "$(handlers "$1")"), " in
        *", $2, "*) ;;
        *) fail "IRQ $1 is not $2 any more; nothing was written; make this script anew" ;;
    esac
}

# handlers IRQ: the command that prints their names, with ", " between them, also for the undo file. They
# follow the last two spaces of the line (show_interrupts() in kernel/irq/proc.c).
handlers() {
    echo "sed -n 's/^ *$1:.*  //p' $(quote "$root/proc/interrupts")"
}
