#!/bin/sh
# Compiles every C file against the headers of the next Debian (13: hiredis 1.x, libmicrohttpd 1.0, Lua 5.4.7), taken from the mirror this machine
# already uses; nothing is installed. Says "skipped" where those packages cannot be had. Usage: sh spec/compat.sh [SUITE]
suite=${1:-trixie}
top=$PWD work=$PWD/build/compat-$suite
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/tree"
site=$(apt-get indextargets --format '$(SITE)' 2>/dev/null | grep -m1 debian)
[ -n "$site" ] || { echo "compat: skipped, no Debian mirror is set up" && exit 0; }
cd "$work" || exit 1
echo "deb [trusted=yes] $site $suite main" >sources.list
touch status
apt="apt-get -qq -o Dir::Etc::sourcelist=$work/sources.list -o Dir::Etc::sourceparts=- -o Dir::State::lists=$work/lists -o Dir::Cache=$work/cache
    -o Dir::State::status=$work/status"
if ! { $apt update && $apt download liblua5.4-dev libhiredis-dev libmicrohttpd-dev libuv1-dev libcurl4-openssl-dev zlib1g-dev; } >apt.log 2>&1; then
    echo "compat: skipped, the packages of $suite cannot be had here" && exit 0
fi
for deb in *.deb; do dpkg -x "$deb" tree; done
cd "$top" || exit 1
inc=$work/tree/usr/include bad=0 n=0
for f in host/*.c host/api/*.c kernels/*.c; do
    case $f in
    *_avx2.c) isa="-mavx2 -mfma" ;;
    *_avx512.c) isa="-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma" ;;
    *) isa= ;;
    esac
    # shellcheck disable=SC2086
    gcc -fsyntax-only -std=gnu11 -Wall -Wno-unused -Werror=deprecated-declarations -D_GNU_SOURCE -DNEAP_VERSION='"x"' -I. -Ihost/include \
        -I"$inc/lua5.4" -I"$inc/hiredis" -I"$inc" -I"$inc/x86_64-linux-gnu" $isa "$f" || bad=$((bad + 1))
    n=$((n + 1))
done
echo "compat: $n files against $(cd "$work" && ls *.deb | sed 's/_amd64.deb//' | tr '\n' ' '): $bad failed"
[ $bad = 0 ]
