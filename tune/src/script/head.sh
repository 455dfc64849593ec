set -eu
LC_ALL=C
export LC_ALL
umask 077
root=${TUNE_ROOT:+$(cd -P "$TUNE_ROOT" && pwd)} || exit 1
PATH=${root:+$root/bin:}$PATH
# One for each network namespace; /run is empty after a boot.
undo_file=$root/run/tune-undo.$(readlink /proc/self/ns/net | tr -dc '[:digit:]').sh
lock=$root/run/corelocal
busy="another tune, or a script of it, is at work"
written=0
optional=
finished=

# Whether anybody reads what is said is no reason to end half-way. (What is called here may still end by it.)
trap : PIPE
[ -e /proc/self/fd/1 ] || exec >/dev/null
[ -e /proc/self/fd/2 ] || exec 2>/dev/null

# complain TEXT…: on stderr, whatever becomes of it.
complain() {
    echo "tune script: $*" >&2 || :
}

# say TEXT…: on stdout, else on stderr: what was done stands all the same.
say() {
    echo "$*" 2>/dev/null || complain "$@"
}

fail() {
    complain "$@"
    exit 1
}

# functions_of_undo: what the undo file has of functions, too, as text.
functions_of_undo() {
    cat <<'END'
# write VALUE FILE: by tee, since not every shell says why it could not write.
write() {
    printf '%s\n' "$1" | tee "$2" >/dev/null
}

# hash_by INTERFACE FLOW FIELDS: ethtool 6.1 ends with 0, whatever it complains of.
hash_by() {
    ! ethtool -N "$1" rx-flow-hash "$2" "$3" 2>&1 | grep .
}

# ban SOCKET IRQS: the interrupts that irqbalance leaves alone.
ban() {
    printf 'settings ban irqs %s\000' "$2" | socat -u - "UNIX-CONNECT:$1"
}

# attempt COMMAND…: runs it, and again for two seconds while a driver is busy; $message is what it says. (The
# tee of busybox says "I/O error" whatever the kernel said.)
attempt() {
    for pause in 1 1 0; do
        if message=$("$@" 2>&1); then
            message=
            return 0
        fi
        case $message in
            *[Rr]"esource busy"* | *"temporarily unavailable"* | *": I/O error"*) sleep "$pause" ;;
            *) return 1 ;;
        esac
    done
    return 1
}

# put_back COMMAND…: on the way back, whatever became of the ones before. What is gone needs nothing.
put_back() {
    if attempt "$@"; then
        return 0
    fi
    echo "tune script: $*: $message" >&2 || :
    case $message in
        *"No such "*) ;;
        *) failed=1 ;;
    esac
}
END
}
eval "$(functions_of_undo)"

# lock: one run at a time, also of what undoes one and of tune, which locks the same directory. Who may not
# make or read it may not set anything either, and is told so elsewhere.
lock() {
    command -v flock >/dev/null || fail "flock is not installed; nothing was written"
    mkdir -p "$lock" 2>/dev/null && [ -r "$lock" ] || return 0
    exec 9<"$lock"
    flock -n 9 || fail "$busy; nothing was written"
}

# quote TEXT: the text as one word of a shell.
quote() {
    case $1 in
        *"'"*) printf '%s\n' "$1" | sed "s/'/'\\\\''/g; 1s/^/'/; \$s/\$/'/" ;;
        *) printf "'%s'\n" "$1" ;;
    esac
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
