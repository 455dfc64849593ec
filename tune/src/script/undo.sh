
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
    line="put_back $(setter "$1" "$2")"
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
    earlier_lines="$(grep -e '^put_back ' -e ' put_back .* ;; esac$' "$undo_file" || :)
"
}

# begin_undo: what the undo file has before and after the lines that are noted.
begin_undo() {
    # shellcheck disable=SC2016 # for the file, not for here
    undo_head=$(
        printf '%s\n' '#!/bin/sh' '# Puts back what was there before, last written first.' \
            '# shellcheck disable=SC2317 # put_back calls by name' 'failed=0' 'refuse() {' \
            '    echo "tune script: $1 is another one; nothing was put back" >&2' '    exit 1' '}'
        functions_of_undo
        [ -z "$root" ] || printf 'PATH=%s:$PATH\n' "$(quote "$root/bin")"
        directory=$(quote "$lock")
        printf 'if ! { mkdir -p %s && exec 9<%s && flock -n 9; }; then\n' "$directory" "$directory"
        printf '%s\n' "    echo \"tune script: $busy; nothing was put back\" >&2" '    exit 1' 'fi'
        printf '%s' "$guards"
    )
    # shellcheck disable=SC2016 # for the file, not for here
    undo_end=$(printf '[ "$failed" -ne 0 ] || rm -f %s\nexit "$failed"' "$(quote "$undo_file")")
}

# keep_undo: what is noted, as a file that puts it back, and nothing where there is nothing.
keep_undo() {
    if [ -z "$undo_lines$earlier_lines" ]; then
        rm -f "$undo_file"
        return 0
    fi
    new="$undo_head
$undo_lines$earlier_lines$undo_end"
    if ! why=$({ write "$new" "$undo_file.new" && mv "$undo_file.new" "$undo_file"; } 2>&1); then
        rm -f "$undo_file.new"
        fail "the way back cannot be kept in $undo_file: $why"
    fi
}

# undo: puts back what this run wrote; nothing is left of it.
undo() {
    failed=0
    if [ "$written" -eq 0 ]; then
        complain "nothing was written"
    else
        eval "$undo_lines"
        if [ "$failed" -ne 0 ]; then
            complain "NOT wholly undone; run again: ${inside}sh $undo_file"
            return 0
        fi
        complain "undone, every value is as before"
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
