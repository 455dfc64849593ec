
# What puts back what this run wrote, last written first, and what earlier runs wrote.
undo_lines=
earlier_lines=
# Where that may be done.
link=/proc/self/ns/net
guards="[ \"\$(readlink $link)\" = '$(readlink $link)' ] || refuse 'this network namespace'
"

# same FILE: the undo file refuses to run where the file is there and holds something else than now.
same() {
    file=$(quote "$1")
    is=$(quote "$(cat "$1" 2>/dev/null)")
    guards="${guards}[ \"\$(cat $file 2>/dev/null || echo $is)\" = $is ] || refuse $file
"
}

# note PATH VALUE [IRQ NAME]: on the way back it is set to this; an interrupt only if it is that of this
# handler.
note() {
    line="{ $(setter "$1" "$2"); } || failed=1"
    if [ $# -gt 2 ]; then
        line="case \", \$($(handlers "$3")), \" in *$(quote ", $4, ")*) $line ;; esac"
    fi
    undo_lines="$line
$undo_lines"
}

# earlier_runs: what they left to undo is undone after what this one writes.
earlier_runs() {
    mkdir -p "$root/run"
    [ -e "$undo_file" ] || return 0
    guards="$(grep ' || refuse ' "$undo_file" || :)
$guards"
    (eval "refuse() { exit 1; }; $guards") ||
        fail "$undo_file is of another interface; nothing was written; run it where that is, or remove it"
    guards="$(printf '%s' "$guards" | sort -u)
"
    earlier_lines="$(grep ' || failed=1' "$undo_file" || :)
"
}

# keep_undo: what is noted, as a file that puts it back, and nothing where there is nothing.
keep_undo() {
    if [ -z "$undo_lines$earlier_lines" ]; then
        rm -f "$undo_file"
        return 0
    fi
    {
        # shellcheck disable=SC2016 # for the file, not for here
        printf '%s\n' '#!/bin/sh' '# Puts back what was there before, last written first.' 'failed=0' \
            'refuse() {' '    echo "tune script: $1 is another one; nothing was put back" >&2' \
            '    exit 1' '}'
        # shellcheck disable=SC2016 # for the file, not for here
        [ -z "$root" ] || printf 'PATH=%s:$PATH\n' "$(quote "$root/bin")"
        printf '%s' "$guards" "$undo_lines" "$earlier_lines"
        # shellcheck disable=SC2016 # for the file, not for here
        printf '[ "$failed" -ne 0 ] || rm -f %s\nexit "$failed"\n' "$(quote "$undo_file")"
    } >"$undo_file.new"
    mv "$undo_file.new" "$undo_file"
}

# undo: puts back what this run wrote; nothing is left of it.
undo() {
    if [ "$written" -eq 0 ]; then
        echo "tune script: nothing was written" >&2
    elif (failed=0 && eval "$undo_lines" && exit "$failed"); then
        echo "tune script: undone, every value is as before" >&2
    else
        echo "tune script: NOT wholly undone; run again: ${inside}sh $undo_file" >&2
        return 0
    fi
    undo_lines=
    keep_undo
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
