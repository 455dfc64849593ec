set -eu
LC_ALL=C
export LC_ALL
umask 077
root=${TUNE_ROOT:-}
PATH=${root:+$root/bin:}$PATH
undo_file=$root/run/tune-undo.$$.sh
undo_lines=
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

# canonical FORM TEXT: the text as the kernel's other ways of writing the same value would read, too.
canonical() {
    case $1 in
        mask) printf '%s\n' "$2" | tr -d ', ' | sed 's/^0*//' ;;
        list) printf '%s\n' "$2" | awk -F, '{
            for (i = 1; i <= NF; i++) {
                last = split($i, ends, "-")
                for (cpu = ends[1] + 0; cpu <= ends[last] + 0; cpu++) printf "%d ", cpu
            }
        }' ;;
        *) printf '%s\n' "$2" | tr -s '[:space:]' ' ' | sed 's/^ //; s/ $//' ;;
    esac
}

# interface PATH: the one of ethtool/INTERFACE/….
interface() {
    printf '%s\n' "$1" | cut -d/ -f2
}

# now KINDS: of the numbers that ethtool prints the current ones of these kinds, which are "rx 4 tx 4" or the like.
now() {
    awk -v kinds="$1" '
        /^Current/ { current = 1 }
        current && NF == 2 { value[tolower($1)] = $2 }
        END {
            words = split(kinds, word)
            for (i = 1; i < words; i += 2) printf "%s %s ", word[i], value[word[i] ":"]
        }'
}

# table: the indirection table that ethtool prints, "equal 4" where it goes round, else "table 0*16 1*16".
table() {
    awk '
        /hash key/ { exit }
        /^ *[0-9]+:/ { for (i = 2; i <= NF; i++) { entry[length_++] = $i + 0; if ($i + 0 > most) most = $i + 0 } }
        END {
            for (i = 0; i < length_; i++) if (entry[i] != i % (most + 1)) uneven = 1
            if (length_ == 0) exit
            if (!uneven && most < length_) { print "equal " most + 1; exit }
            printf "table"
            for (i = 0; i < length_; i++) {
                run++
                if (i + 1 == length_ || entry[i + 1] != entry[i]) { printf " %d*%d", entry[i], run; run = 0 }
            }
        }'
}

# weights TABLE: the arguments of ethtool -X that make it; of runs whose queues ascend.
weights() {
    printf '%s\n' "$1" | awk '
        $1 != "table" { print; exit }
        {
            for (i = 2; i <= NF; i++) { split($i, run, "*"); weight[run[1]] = run[2]; most = run[1] }
            printf "weight"
            for (queue = 0; queue <= most; queue++) printf " %d", weight[queue]
        }'
}

# thread PATH: the process that polls the NAPI instance of napi_thread/INTERFACE/ID. (No two have the same number.)
thread() {
    grep -lx "napi/.*-${1##*/}" "$root"/proc/[0-9]*/comm 2>/dev/null | sed 's,/comm$,,; s,.*/,,' | grep .
}

# irqbalance PATH: the socket of irqbalance/PROCESS.
irqbalance() {
    echo "$root/run/irqbalance/irqbalance${1#*/}.sock"
}

# found PATH VALUE: what it holds; VALUE is of the form that is asked for.
found() {
    case $1 in
        /*) cat "$root$1" ;;
        ethtool/*/channels) ethtool -l "$(interface "$1")" | now "$2" ;;
        ethtool/*/rings) ethtool -g "$(interface "$1")" | now "$2" ;;
        ethtool/*/rss) ethtool -x "$(interface "$1")" | table ;;
        ethtool/*/ntuple) ethtool -k "$(interface "$1")" | awk '$1 == "ntuple-filters:" { print $2 }' ;;
        ethtool/*/coalesce/adaptive_rx) ethtool -c "$(interface "$1")" | awk '$1 == "Adaptive" { print $3 }' ;;
        ethtool/*/coalesce/adaptive_tx) ethtool -c "$(interface "$1")" | awk '$1 == "Adaptive" { print $5 }' ;;
        ethtool/*/coalesce/*) ethtool -c "$(interface "$1")" | awk -v name="${1##*/}:" '{ gsub("-", "_", $1) } $1 == name { print $2 }' ;;
        napi_thread/*) taskset -c -p "$(thread "$1")" | sed 's/.*: //' ;;
        irqbalance/*) printf 'setup\000' | socat -t 5 - "UNIX-CONNECT:$(irqbalance "$1")" | tr -d '\000' |
            awk '{ for (i = 1; i < NF; i++) if ($i == "IRQ") print $(i + 1) }' | sort -n | tr '\n' ' ' ;;
    esac
}

# setter PATH VALUE: the command that sets it, also for the undo file.
setter() {
    case $1 in
        /*) printf "printf '%%s\\\\n' %s >%s\n" "$(quote "$2")" "$(quote "$root$1")" ;;
        ethtool/*/channels) echo "ethtool -L $(quote "$(interface "$1")") $2" ;;
        ethtool/*/rings) echo "ethtool -G $(quote "$(interface "$1")") $2" ;;
        ethtool/*/rss) echo "ethtool -X $(quote "$(interface "$1")") $(weights "$2")" ;;
        ethtool/*/ntuple) echo "ethtool -K $(quote "$(interface "$1")") ntuple $2" ;;
        ethtool/*/coalesce/*) echo "ethtool -C $(quote "$(interface "$1")") $(printf '%s\n' "${1##*/}" | tr _ -) $2" ;;
        napi_thread/*) echo "taskset -c -p $2 $(thread "$1") >/dev/null" ;;
        irqbalance/*) printf "printf 'settings ban irqs %s\\\\000' | socat -u - UNIX-CONNECT:%s\n" "${2:-NONE}" "$(quote "$(irqbalance "$1")")" ;;
    esac
}

# holds FORM PATH VALUE: true if it holds the value.
holds() {
    text=$(found "$2" "$3") || return 1
    [ "$(canonical "$1" "$text")" = "$(canonical "$1" "$3")" ]
}

# interrupt IRQ NAME: the number still belongs to the handler that it had when this script was made.
interrupt() {
    awk -v irq="$1:" -v name="$2" '$1 == irq && index($0, name) { found = 1 } END { exit !found }' \
        "$root/proc/interrupts" || fail "IRQ $1 is not $2 any more; nothing was written; make this script anew"
}

# can_tell PATH: irqbalance can be told; if not, the rest is done without, as tune does it.
can_tell() {
    if [ -z "$root" ] && ! command -v socat >/dev/null; then
        why="socat is not installed"
    elif [ ! -e "$(irqbalance "$1")" ]; then
        why="there is no $(irqbalance "$1")"
    else
        return 0
    fi
    echo "tune script: skipped $1: $why; it may move the interrupts again" >&2
    return 1
}

# look FORM PATH BEFORE AFTER: it can be written, and holds what it did when this script was made, or what it shall.
look() {
    case $2 in
        /*)
            [ -e "$root$2" ] || fail "$2 does not exist; nothing was written"
            [ -w "$root$2" ] || fail "$2 cannot be written; nothing was written; run this as root"
            ;;
        ethtool/*) needs ethtool ;;
        irqbalance/*) can_tell "$2" && needs socat || return 0 ;;
        napi_thread/*)
            needs taskset
            thread "$2" >/dev/null || fail "the thread of $2 is gone; nothing was written; make this script anew"
            ;;
    esac
    holds "$1" "$2" "$3" || holds "$1" "$2" "$4" ||
        fail "$2 holds \"$text\" and not \"$3\" as when this script was made; nothing was written; make it anew"
}

# note PATH VALUE: on the way back it is set to this.
note() {
    undo_lines="{ $(setter "$1" "$2"); } || failed=1
$undo_lines"
}

# keep_undo: what is noted, as a file that puts it back.
keep_undo() {
    {
        printf '#!/bin/sh\n# Puts back what was there before, last written first.\nfailed=0\n'
        printf '%s' "$undo_lines"
        # shellcheck disable=SC2016 # for the file, not for here
        printf 'exit "$failed"\n'
    } >"$undo_file.new"
    mv "$undo_file.new" "$undo_file"
}

# put FORM PATH BEFORE AFTER: notes the old value for the way back, sets the new one, and reads it back.
put() {
    case $2 in
        irqbalance/*) can_tell "$2" 2>/dev/null || return 0 ;;
    esac
    if holds "$1" "$2" "$4"; then
        return 0
    fi
    was=$text
    lines_before=$undo_lines
    note "$2" "$was"
    keep_undo
    written=$((written + 1))
    if ! message=$(eval "$(setter "$2" "$4")" 2>&1); then
        if holds "$1" "$2" "$was"; then
            undo_lines=$lines_before
            keep_undo
            written=$((written - 1))
        fi
        case $optional$message in
            yes*"not supported"*)
                echo "tune script: skipped $2: $message" >&2
                return 0
                ;;
        esac
        fail "set $2 to \"$4\": $message"
    fi
    holds "$1" "$2" "$4" || fail "set $2 to \"$4\": it reads back \"$text\""
    echo "$2: ${3:-$was} -> $4"
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

# keep PATH [IRQ NAME]: the driver may overwrite it when it makes its queues anew; the way back sets it after that. An
# interrupt only if it is again that of the same handler.
keep() {
    [ "$phase" = put ] && [ -e "$root$1" ] && text=$(cat "$root$1" 2>/dev/null) || return 0
    note "$1" "$text"
    if [ $# -gt 1 ]; then
        undo_lines="! grep -q \"^ *$2:.*\"$(quote "$3") $(quote "$root/proc/interrupts") || $undo_lines"
    fi
}

# later FORM PATH AFTER: of a queue that is there only when the channels are set.
later() {
    [ "$phase" = put ] || return 0
    [ -e "$root$2" ] || fail "$2 does not exist"
    put "$1" "$2" '' "$3"
}

# undo: puts back what was written; nothing is left of an unfinished run.
undo() {
    if [ "$written" -eq 0 ]; then
        rm -f "$undo_file"
        echo "tune script: nothing was written" >&2
    elif sh "$undo_file"; then
        rm -f "$undo_file"
        echo "tune script: undone, every value is as before" >&2
    else
        echo "tune script: NOT wholly undone; run again: sh $undo_file" >&2
    fi
}

at_exit() {
    status=$?
    trap '' HUP INT TERM
    trap - EXIT
    if [ -z "$finished" ]; then
        undo
    fi
    exit "$status"
}
