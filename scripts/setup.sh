#!/bin/sh
# Checks for the Debian packages that neap needs and installs what is missing with one apt-get command.
# Usage: sh scripts/setup.sh build|test      Exit: 0 all there, 3 something is missing and may not be installed from here.
BUILD="gcc libc6-dev binutils make pkg-config liblua5.4-dev libhiredis-dev libmicrohttpd-dev libuv1-dev libcurl4-openssl-dev zlib1g-dev lua-cjson redis-server"
TEST="lua-busted curl python3 procps lua5.4 luarocks"

case "$1" in
test) want="$BUILD $TEST" ;;
*) want="$BUILD" ;;
esac

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "neap: this is not a Debian system; these packages (or their like) are needed: $want" >&2
    exit 0 # the build itself will say what it lacks
fi
missing=
for p in $want; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing="$missing $p"
done
[ -z "$missing" ] && exit 0

install="apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" = 0 ]; then
    sudo=
elif command -v sudo >/dev/null 2>&1 && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
    sudo=sudo
else
    echo "neap: these Debian packages are missing and this user may not install them:$missing" >&2
    echo "neap: as root, run:  $install" >&2
    exit 3
fi
echo "neap: installing what is missing:  ${sudo:+sudo }$install"
# An installed redis-server must not start a server of its own on port 6379: neap starts a private one where it needs it.
policy=/usr/sbin/policy-rc.d
if [ -z "$sudo" ] && [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && trap 'rm -f $policy' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
run() { $sudo "$@"; }
# shellcheck disable=SC2086
if ! run $install >/tmp/neap-apt.$$ 2>&1; then
    run apt-get update -qq && run $install || { cat /tmp/neap-apt.$$ >&2; rm -f /tmp/neap-apt.$$; echo "neap: apt-get failed; the command was: $install" >&2; exit 3; }
fi
rm -f /tmp/neap-apt.$$
