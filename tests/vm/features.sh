#!/bin/bash
# features.sh - reads `server doctor --json` in a guest: a feature is absent if, and only if, the release of Linux that
# brought it is newer than the one that runs. Says how many there are, or which one is not as it should be.
tr '{' '\n' |
    sed -n 's/^"state":"\([a-z_]*\)","since":"\([0-9.]*\)".*/\1 \2/p' |
    awk -v release="$(uname -r)" '
        function number(version, parts) { split(version, parts, /[.-]/); return parts[1] * 1000 + parts[2] }
        {
            wanted = number($2) > number(release) ? "absent" : "there"
            found = $1 == "absent" ? "absent" : "there"
            count[found]++
            if (found != wanted) { print "features.sh: a feature of Linux " $2 " is " found " on " release; wrong = 1 }
        }
        END {
            if (NR == 0) { print "features.sh: server doctor names no feature"; exit 1 }
            print "features: " count["there"] + 0 " there, " count["absent"] + 0 " absent, by the releases that brought them"
            exit wrong
        }'
