set -eu
LC_ALL=C
export LC_ALL
umask 077
root=${TUNE_ROOT:-}
undo_file=$root/run/tune-undo.$$.sh
undo_lines=
written=0
finished=

fail() {
    echo "tune script: $*" >&2
    exit 1
}

# canonical FORM TEXT: the text as the kernel's other ways of writing the same value would read, too.
canonical() {
    case $1 in
        mask) printf '%s\n' "$2" | tr -d ', ' | sed 's/^0*//' ;;
        *) printf '%s\n' "$2" | tr -s '[:space:]' ' ' | sed 's/^ //; s/ $//' ;;
    esac
}

# holds FORM PATH VALUE: true if the file holds the value.
holds() {
    text=$(cat "$root$2") || return 1
    [ "$(canonical "$1" "$text")" = "$(canonical "$1" "$3")" ]
}

# interrupt IRQ NAME: the number still belongs to the handler that it had when this script was made.
interrupt() {
    awk -v irq="$1:" -v name="$2" '$1 == irq && index($0, name) { found = 1 } END { exit !found }' \
        "$root/proc/interrupts" || fail "IRQ $1 is not $2 any more; nothing was written; make this script anew"
}

# look FORM PATH BEFORE AFTER: the file can be written, and holds what it did when this script was made, or what it shall.
look() {
    [ -e "$root$2" ] || fail "$2 does not exist; nothing was written"
    [ -w "$root$2" ] || fail "$2 cannot be written; nothing was written; run this as root"
    holds "$1" "$2" "$3" || holds "$1" "$2" "$4" ||
        fail "$2 holds \"$text\" and not \"$3\" as when this script was made; nothing was written; make it anew"
}

# put FORM PATH BEFORE AFTER: notes the old value for the way back, writes the new one in one write, and reads it back.
put() {
    if holds "$1" "$2" "$4"; then
        return 0
    fi
    case $text in
        *\'*) fail "$2 holds a quotation mark: $text" ;;
    esac
    undo_lines="printf '%s\\n' '$text' >'$root$2' || failed=1
$undo_lines"
    {
        printf '#!/bin/sh\n# Puts back what was there before, last written first.\nfailed=0\n'
        printf '%s' "$undo_lines"
        # shellcheck disable=SC2016 # for the file, not for here
        printf 'exit "$failed"\n'
    } >"$undo_file.new"
    mv "$undo_file.new" "$undo_file"
    written=$((written + 1))
    printf '%s\n' "$4" >"$root$2" || fail "write \"$4\" to $2"
    holds "$1" "$2" "$4" || fail "write \"$4\" to $2: it reads back \"$text\""
    echo "$2: $3 -> $4"
}

# step FORM PATH BEFORE AFTER: what this phase does with one setting.
step() {
    case $phase in
        look) look "$@" ;;
        put) put "$@" ;;
    esac
}

# undo: puts back what was written; nothing is left of an unfinished run.
undo() {
    [ "$written" -gt 0 ] || return 0
    if sh "$undo_file"; then
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
