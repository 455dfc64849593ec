
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
        # What is discarded is not hashed, and ethtool names no other field then.
        fields) printf '%s\n' "$2" | sed 's/.*r.*/r/' ;;
        *) printf '%s\n' "$2" | tr -s '[:space:]' ' ' | sed 's/^ //; s/ $//' ;;
    esac
}

# rounds_to ASKED FOUND: of each kind of ring a driver may have made what is found of what was asked for: the
# next power of two or multiple of 8, 16, 32 or 64.
rounds_to() {
    printf '%s\n' "$1" "$2" | awk '
        function next_multiple(of) { return of * int((asked + of - 1) / of) }
        NR == 1 { kinds = split($0, wanted); next }
        NF != kinds { exit 1 }
        {
            for (i = 1; i < NF; i += 2) {
                asked = wanted[i + 1]
                power = 1
                while (power < asked) power *= 2
                rounds = $(i + 1) == asked || $(i + 1) == power
                for (of = 8; of <= 64; of *= 2) rounds = rounds || $(i + 1) == next_multiple(of)
                if ($i != wanted[i] || !rounds) exit 1
            }
        }'
}

# holds FORM PATH VALUE: true if it holds the value.
holds() {
    text=$(found "$2" "$3") || return 1
    if [ "$text" = "$3" ]; then
        return 0
    elif [ "$1" = rings ]; then
        rounds_to "$3" "$text"
    else
        [ "$(canonical "$1" "$text")" = "$(canonical "$1" "$3")" ]
    fi
}

# interface PATH: the one of ethtool/INTERFACE/….
interface() {
    name=${1#*/}
    echo "${name%%/*}"
}

# now KINDS: of the numbers that ethtool prints the current ones of these kinds, which are "rx 4 tx 4" or the
# like.
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
        /^ *[0-9]+:/ {
            for (i = 2; i <= NF; i++) {
                entry[length_++] = $i + 0
                if ($i + 0 > most) most = $i + 0
            }
        }
        END {
            for (i = 0; i < length_; i++) if (entry[i] != i % (most + 1)) uneven = 1
            if (length_ == 0) exit
            if (!uneven && most < length_) { print "equal " most + 1; exit }
            printf "table"
            for (i = 0; i < length_; i++) {
                run++
                if (i + 1 < length_ && entry[i + 1] == entry[i]) continue
                printf " %d*%d", entry[i], run
                run = 0
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

# can_give_back TABLE CHANNELS: the table names each of the receive queues as often as the others or once
# more, as the driver's own does, and ethtool could make it again.
can_give_back() {
    printf '%s\n' "$1" "$2" | awk '
        NR == 1 { runs = split($0, run) }
        NR == 2 { for (i = 1; i < NF; i += 2) if ($i != "tx") queues += $(i + 1) }
        END {
            if (run[1] == "equal") exit (run[2] != queues)
            for (i = 2; i <= runs; i++) {
                split(run[i], of, "*")
                if (i > 2 && of[1] + 0 <= last) exit 1
                last = of[1] + 0
                count[last] = of[2]
            }
            for (queue in count) if (queue + 0 >= queues) exit 1
            least = most = count[0] + 0
            for (queue = 0; queue < queues; queue++) {
                if (count[queue] + 0 < least) least = count[queue] + 0
                if (count[queue] > most) most = count[queue]
            }
            exit (least == 0 || most - least > 1)
        }'
}

# fields: the fields that are hashed, which ethtool prints one on a line, as the letters that it takes.
fields() {
    awk '
        /All matching flows discarded/ { printf "r" }
        /^None/ { printf "none" }
        /^L2DA/ { printf "m" }
        /^VLAN tag/ { printf "v" }
        /^L3 proto/ { printf "t" }
        /^IP SA/ { printf "s" }
        /^IP DA/ { printf "d" }
        /^L4 bytes 0/ { printf "f" }
        /^L4 bytes 2/ { printf "n" }
        /^GTP TEID/ { printf "e" }
        /^IPv6 Flow Label/ { printf "l" }'
}

# parameter NAME: of those of coalescing that ethtool prints.
parameter() {
    awk -v name="$1:" '
        name == "adaptive_rx:" && $1 == "Adaptive" { print $3 }
        name == "adaptive_tx:" && $1 == "Adaptive" { print $5 }
        { gsub("-", "_", $1) }
        $1 == name { print $2 }'
}

# thread PATH: the process that polls the NAPI instance of napi_thread/INTERFACE/ID. (No two have the same
# number.)
thread() {
    grep -lx "napi/.*-${1##*/}" "$root"/proc/[0-9]*/comm 2>/dev/null | sed 's,/comm$,,; s,.*/,,' | grep .
}

# irqbalance PATH: the socket of irqbalance/PROCESS.
irqbalance() {
    echo "$root/run/irqbalance/irqbalance${1#*/}.sock"
}

# banned PATH: the interrupts that it leaves alone.
banned() {
    printf 'setup\000' | socat -t 5 - "UNIX-CONNECT:$(irqbalance "$1")" | tr -d '\000' |
        awk '{ for (i = 1; i < NF; i++) if ($i == "IRQ") print $(i + 1) }' | sort -n | tr '\n' ' '
}

# found PATH VALUE: what it holds; VALUE is of the form that is asked for.
found() {
    case $1 in
        /*) cat "$root$1" ;;
        ethtool/*/channels) ethtool -l "$(interface "$1")" | now "$2" ;;
        ethtool/*/rings) ethtool -g "$(interface "$1")" | now "$2" ;;
        ethtool/*/rss/*) ethtool -n "$(interface "$1")" rx-flow-hash "${1##*/}" | fields ;;
        ethtool/*/rss) ethtool -x "$(interface "$1")" | table ;;
        ethtool/*/ntuple) ethtool -k "$(interface "$1")" | awk '$1 == "ntuple-filters:" { print $2 }' ;;
        ethtool/*/coalesce/*) ethtool -c "$(interface "$1")" | parameter "${1##*/}" ;;
        napi_thread/*) taskset -c -p "$(thread "$1")" | sed 's/.*: //' ;;
        irqbalance/*) banned "$1" ;;
    esac
}

# setter PATH VALUE: the command that sets it, as words of a shell, also for the undo file.
setter() {
    case $1 in
        ethtool/*) to=$(quote "$(interface "$1")") ;;
    esac
    case $1 in
        /*) echo "write $(quote "$2") $(quote "$root$1")" ;;
        ethtool/*/channels) echo "ethtool -L $to $2" ;;
        ethtool/*/rings) echo "ethtool -G $to $2" ;;
        ethtool/*/rss/*) echo "hash_by $to ${1##*/} $(quote "${2#none}")" ;;
        ethtool/*/rss) echo "ethtool -X $to $(weights "$2")" ;;
        ethtool/*/ntuple) echo "ethtool -K $to ntuple $2" ;;
        ethtool/*/coalesce/*) echo "ethtool -C $to $(printf '%s\n' "${1##*/}" | tr _ -) $2" ;;
        napi_thread/*) echo "taskset -c -p $2 $(thread "$1")" ;;
        irqbalance/*) echo "ban $(quote "$(irqbalance "$1")") $(quote "${2:-NONE}")" ;;
    esac
}
