#!/bin/bash
# integration.sh [machine.sh's options] - runs the integration tests of `server` in a guest, with its kernel. For example with
# the one that `VM_KERNEL_SUITE=bookworm tests/vm/setup.sh /tmp/k61` fetched: integration.sh -k /tmp/k61/kernel
#
# CARGO_TARGET_DIR says where cargo builds, SERVER_WITHOUT goes on to the tests (see tests/server), VM_TESTS chooses some.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
payload=$(mktemp -d)
trap 'rm -rf "$payload"' EXIT

# The test's program and the server, at the path that the test knows it by.
cargo test --quiet -p server --test black_box --no-run --message-format json >"$payload/built"
built() { # the program of a target, as cargo says it
    sed -n "s/.*\"kind\":\[\"$1\"\].*\"executable\":\"\([^\"]*\)\".*/\1/p" "$payload/built" | tail -n1
}
test=$(built test) server=$(built bin)
rm "$payload/built"
strip -o "$payload/black_box" "$test"
strip -o "$payload/server" "$server"
cat >"$payload/run" <<END
ulimit -n 20000 # as on a host; some tests fill all that they may open
mkdir -p '${server%/*}'
ln -s /payload/server '$server'
uname -r
./server doctor --cores 0-3 --listen 10.0.0.1:7000 || :
${SERVER_WITHOUT:+export SERVER_WITHOUT=$SERVER_WITHOUT}
./black_box --test-threads 2 ${VM_TESTS:-} 2>&1 | grep --line-buffered -Ev '\.\.\. ok$'
exit \${PIPESTATUS[0]}
END
"$here/machine.sh" -c 4 -t 3000 "$@" "$payload" 'bash ./run'
