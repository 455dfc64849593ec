
# can_tell PATH: irqbalance can be told; if not, the rest is done without, as tune does it.
can_tell() {
    if [ -z "$root" ] && ! command -v socat >/dev/null; then
        why="socat is not installed"
    elif [ ! -e "$(irqbalance "$1")" ]; then
        why="there is no $(irqbalance "$1")"
    else
        return 0
    fi
    complain "skipped $1: $why; it may move the interrupts again"
    return 1
}

# look FORM PATH BEFORE AFTER: it can be written, and holds what it did when this script was made, or what it
# shall.
look() {
    case $2 in
        /*)
            [ -e "$root$2" ] || fail "$2 does not exist; nothing was written"
            [ -w "$root$2" ] || fail "$2 cannot be written; nothing was written; run this as root"
            ;;
        ethtool/*) needs ethtool ;;
        irqbalance/*) can_tell "$2" 2>/dev/null && needs socat || return 0 ;;
        napi_thread/*)
            needs taskset
            thread "$2" >/dev/null ||
                fail "the thread of $2 is gone; nothing was written; make this script anew"
            ;;
    esac
    holds "$1" "$2" "$3" || holds "$1" "$2" "$4" ||
        fail "$2 holds \"$text\" and not \"$3\" as when this script was made; nothing was written;" \
            "make it anew"
}

# is_unsupported PATH MESSAGE: the driver does not have it. (Fields that it does not hash are EINVAL.)
is_unsupported() {
    case $1:$2 in
        *"Operation not supported"* | ethtool/*/rss/*:*"Invalid argument"*) return 0 ;;
    esac
    return 1
}

# set_to PATH VALUE: sets it, or leaves in $message why not. The kernel refuses fewer channels than a table
# names that somebody has set: one that is even over all is given back to the driver, which fills it for those
# that stay; the way back makes it again when the channels are there again, unless the driver does.
set_to() {
    if eval "attempt $(setter "$1" "$2")"; then
        return 0
    fi
    case $1:$message in
        ethtool/*/channels:*"indirection table"*) ;;
        *) return 1 ;;
    esac
    nic=$(interface "$1")
    rss=${1%channels}rss
    filled=$(found "$rss" '')
    if ! can_give_back "$filled" "$(found "$1" "$2")"; then
        message="$message; \"ethtool -X $nic default\" takes that table back"
        return 1
    fi
    make_again=:
    case $filled in
        table*)
            make_again=$(setter "$rss" "$filled")
            undo_lines=$lines_before
            note "$rss" "$filled"
            note "$1" "$was"
            keep_undo
            ;;
    esac
    if attempt ethtool -X "$nic" default && eval "attempt $(setter "$1" "$2")"; then
        return 0
    fi
    refusal=$message
    eval "attempt $make_again" || :
    message=$refusal
    return 1
}

# put FORM PATH BEFORE AFTER: notes the old value for the way back, sets the new one, and reads it back.
put() {
    case $2 in
        irqbalance/*) can_tell "$2" || return 0 ;;
    esac
    if holds "$1" "$2" "$4"; then
        return 0
    fi
    was=$text
    lines_before=$undo_lines
    note "$2" "$was"
    keep_undo
    written=$((written + 1))
    if set_to "$2" "$4" && holds "$1" "$2" "$4"; then
        is=$4
        [ "$1" != rings ] || is=$(canonical words "$text")
        [ "$is" = "$4" ] || is="$is, to which the driver rounds $4"
        say "$2: ${3:-$was} -> $is"
        return 0
    fi
    if holds "$1" "$2" "$was"; then
        undo_lines=$lines_before
        keep_undo
        written=$((written - 1))
    fi
    if [ -n "$optional" ] && is_unsupported "$2" "$message"; then
        complain "skipped $2: $message"
        return 0
    fi
    fail "set $2 to \"$4\": ${message:-it reads back \"$text\"}"
}

# step FORM PATH BEFORE AFTER: what this phase does with one setting.
step() {
    case $phase in
        look) look "$@" ;;
        put) put "$@" ;;
    esac
}

# try: a step that the driver may turn out not to support.
try() {
    optional=yes
    step "$@"
    optional=
}

# keep PATH [IRQ NAME]: the driver may overwrite it when it makes its queues anew; the way back sets it after
# that. An interrupt only if it is again that of the same handler.
keep() {
    [ "$phase" = put ] && [ -e "$root$1" ] && text=$(cat "$root$1" 2>/dev/null) || return 0
    path=$1
    shift
    note "$path" "$text" "$@"
}

# later FORM PATH AFTER: of a queue that is there only when the channels are set.
later() {
    [ "$phase" = put ] || return 0
    [ -e "$root$2" ] || fail "$2 does not exist"
    put "$1" "$2" '' "$3"
}

# run: looks at everything, then writes it.
run() {
    phase=look
    # As by tune: what is refused is refused before the directory is made, and looked at again when locked.
    [ -d "$lock" ] || changes
    lock
    changes
    earlier_runs
    begin_undo
    trap at_exit EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    phase=put
    changes
    finished=yes
    if [ "$written" -eq 0 ]; then
        undo_lines=
        keep_undo
        say "nothing to do"
    else
        say "applied $written changes; to undo: ${inside}sh $undo_file"
    fi
}
