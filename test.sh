#!/usr/bin/env bash
# Runs all tests, on the CPU and on every GPU adapter of this machine.
#
#   ./test.sh                   in Cargo's dev profile, which optimises dependencies fully and this workspace a little
#   ./test.sh --release         further arguments go to `cargo test`
#   WGRAD_REQUIRE_GPU=1 ./test.sh    no adapter is a failure
#
# A Linux machine without an adapter gets Mesa's software adapters, for Vulkan and for GL, if it has apt.
set -euo pipefail
cd "$(dirname "$0")"

install() {
    local sudo=()
    [ "$(id -u)" = 0 ] || sudo=(sudo)
    echo "test.sh: installing $* with apt"
    "${sudo[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# The adapters that the library itself finds. The example is built with the features that the tests are built with, so that
# nothing is compiled twice.
adapters() {
    local devices
    devices=$(cargo build --workspace --example devices --message-format=json |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')
    "$devices" | grep -v '^cpu' || true
}

# GL without a window system wants a folder for its runtime files.
export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-$(mktemp -d)}

if ! command -v cc >/dev/null && command -v apt-get >/dev/null; then
    echo "test.sh: Rust needs a linker, and there is none"
    install gcc libc6-dev
fi

found=$(adapters)
if [ -z "$found" ] && command -v apt-get >/dev/null; then
    echo "test.sh: no GPU adapter here; Mesa's software adapters will do"
    install libvulkan1 mesa-vulkan-drivers libegl1 libgl1-mesa-dri
    found=$(adapters)
fi
if [ -n "$found" ]; then
    echo "test.sh: adapters:"
    sed 's/^/    /' <<<"$found"
else
    echo "test.sh: no GPU adapter, so the tests run on the CPU only"
fi

# Each test binary is followed by the time that it took.
host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z.-' 'A-Z__')
export "CARGO_TARGET_${host}_RUNNER=$PWD/.ci/timed"
cargo test --workspace "$@"
