#!/bin/sh
# Checks for the Debian packages that neap needs and installs what is missing with one apt-get command.
# Usage: sh scripts/setup.sh build|test      Exit: 0 all there, 3 something is missing and may not be installed from here.
BUILD="gcc libc6-dev binutils make pkg-config liblua5.4-dev libhiredis-dev libmicrohttpd-dev libuv1-dev libcurl4-openssl-dev zlib1g-dev libmimalloc-dev lua-cjson redis-server"
TEST="lua-busted curl python3 procps lua5.4 luarocks"
CLIENTS="openssl influxdb-client python3-influxdb collectd-core libyajl2 mosquitto libmosquitto-dev" # their specs are left out without them
# Prometheus' package starts a server wherever services are started: only a container gets it from here.
[ "$(id -u)" = 0 ] && [ ! -d /run/systemd/system ] && CLIENTS="$CLIENTS prometheus"
NPM_CLIENT=@influxdata/influxdb-client@1.35.0

case "$1" in
test) want="$BUILD $TEST" extra=$CLIENTS ;;
*) want="$BUILD" extra= ;;
esac

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "neap: this is not a Debian system; these packages (or their like) are needed: $want" >&2
    exit 0 # the build itself will say what it lacks
fi
absent() { # those of the packages that are not installed
    for p in "$@"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || printf ' %s' "$p"
    done
}
npm_client() { # the one client that npm has; it goes into build/npm, and nothing of it is run
    [ "$1" = test ] || return 0
    [ -d "build/npm/node_modules/${NPM_CLIENT%@*}" ] && return 0
    if ! command -v node >/dev/null 2>&1 || ! command -v npm >/dev/null 2>&1; then
        echo "neap: the spec of ${NPM_CLIENT%@*} is left out: node and npm are not installed"
    elif ! timeout 60 npm install --prefix build/npm --no-save --no-audit --no-fund --ignore-scripts --fetch-retries=0 --fetch-timeout=10000 \
        "$NPM_CLIENT" >/dev/null 2>&1; then
        echo "neap: the spec of ${NPM_CLIENT%@*} is left out: npm cannot get it here"
    fi
}
npm_client "$1"
# shellcheck disable=SC2086
missing=$(absent $want) extra=$(absent $extra)
[ -z "$missing$extra" ] && exit 0

install="apt-get install -y --no-install-recommends"
if [ "$(id -u)" = 0 ]; then
    sudo=
elif command -v sudo >/dev/null 2>&1 && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
    sudo=sudo
elif [ -z "$missing" ]; then
    echo "neap: the specs of these are left out, they are not installed:$extra"
    exit 0
else
    echo "neap: these Debian packages are missing and this user may not install them:$missing" >&2
    echo "neap: as root, run:  $install$missing$extra" >&2
    exit 3
fi
echo "neap: installing what is missing:  ${sudo:+sudo }$install$missing$extra"
# An installed redis-server must not start a server of its own on port 6379: neap starts a private one where it needs it.
policy=/usr/sbin/policy-rc.d
if [ -z "$sudo" ] && [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && trap 'rm -f $policy' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
run() { $sudo "$@"; }
log=/tmp/neap-apt.$$
# shellcheck disable=SC2086
if ! run $install $missing $extra >$log 2>&1; then
    run apt-get update -qq
    if ! run $install $missing $extra >$log 2>&1; then
        if ! run $install $missing >$log 2>&1; then
            cat $log >&2
            rm -f $log
            echo "neap: apt-get failed; the command was: $install$missing" >&2
            exit 3
        fi
        [ -z "$extra" ] || echo "neap: the specs of these are left out, they cannot be installed here:$(absent $extra)"
    fi
fi
rm -f $log
