#!/bin/bash
# integration.sh [machine.sh's options] - runs the integration tests of a package in a guest, with its kernel. For example
# with the one that `VM_KERNEL_SUITE=bookworm tests/vm/setup.sh /tmp/k61` fetched: integration.sh -k /tmp/k61/kernel
#
# Environment: VM_PACKAGE (server, or tune), VM_TESTS (chooses some), CARGO_TARGET_DIR (where cargo builds), SERVER_WITHOUT
# (goes on to the tests, see tests/server). Of tune the tests that ask the kernel: the others read the repository alone.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
repository=$PWD
package=${VM_PACKAGE:-server}
case $package in
    server) tests=(black_box) copied=() ;;
    tune)
        tests=(apply attack capture channels check cli ethtool faults irqbalance irqbalance_real keep_going killed
            known_faults named_netns nothing_to_do power restore script script_tools script_trouble script_veth
            stacked threaded_napi veth watch)
        copied=(profiles tests/hosts tests/tune)
        export VM_PROGRAMS="flock irqbalance setpriv socat strace ${VM_PROGRAMS:-}"
        ;;
    *) echo "integration.sh: VM_PACKAGE is $package; server and tune can be" >&2 && exit 2 ;;
esac
payload=$(mktemp -d)
trap 'rm -rf "$payload"' EXIT
chmod 755 "$payload" # some tests run the server as another user

# The tests' programs and the package's own, at the path that the tests know it by. Optimised a little: the guest is
# emulated, and what is tested is what the kernel does.
CARGO_PROFILE_DEV_OPT_LEVEL=1 cargo test --quiet -p "$package" "${tests[@]/#/--test=}" --no-run --message-format json >"$payload/built"
built() { # the program of a kind of target and its name, as cargo says it
    sed -n "s/.*\"kind\":\[\"$1\"\].*\"name\":\"$2\".*\"executable\":\"\([^\"]*\)\".*/\1/p" "$payload/built" | tail -n1
}
program=$(built bin "$package")
strip -o "$payload/$package" "$program"
mkdir "$payload/tests"
for test in "${tests[@]}"; do
    strip -o "$payload/tests/$test" "$(built test "$test")"
done
rm "$payload/built"
for directory in "${copied[@]}"; do
    mkdir -p "$payload/repository/$directory"
    cp -a "$directory/." "$payload/repository/$directory"
done
mkdir -p "$payload/repository/$package"
cat >"$payload/run" <<END
ulimit -n 20000 # as on a host; some tests fill all that they may open
# As on a host of 24 GiB. With the 130 MiB of a guest the kernel drops what it has no memory for, and connections that
# are full in both directions stall.
echo 288000 384000 576000 >/proc/sys/net/ipv4/tcp_mem
mkdir -p '${repository%/*}'
ln -s /payload/repository '$repository'
mkdir -p '${program%/*}'
ln -s /payload/$package '$program'
set -o pipefail
uname -r
status=0
if [ $package = server ]; then
    ./server doctor --cores 0-3 --listen 10.0.0.1:7000
    ./server doctor --cores 0-3 --listen 10.0.0.1:7000 --json | bash ./features || status=1
fi
${SERVER_WITHOUT:+export SERVER_WITHOUT=$SERVER_WITHOUT}
for test in tests/*; do
    echo "== \${test##*/}"
    ./\$test --test-threads 2 --nocapture ${VM_TESTS:-} || status=1
done
exit \$status
END
cp "$here/features.sh" "$payload/features"
# Without the times that the tests took: an emulated machine's say nothing.
"$here/machine.sh" -c 4 -m 8192 -t 3000 "$@" "$payload" 'bash ./run' | sed -u 's/; finished in .*//'
