#!/bin/sh
# Makes BUILD/neap-VERSION-linux-x86_64.tar.gz: neap, every library it needs beyond libc, the CUDA backend if it was built, and a redis-server (BSD
# licence up to 7.2; a newer one is left out and said so). BUILD/dist/neap is linked to find its libraries beside itself, so nothing but libc is asked
# of the other machine. Usage: sh scripts/dist.sh BUILD VERSION
set -e
build=$1 name=neap-$2-linux-$(uname -m)
out=$build/$name
rm -rf "$out" && mkdir -p "$out/bin" "$out/lib" "$out/libexec"

copy_libs() { # everything but libc's own parts
    ldd "$1" | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | grep -vE '/(libc|libm|libdl|libpthread|librt|libresolv|ld-linux[^/]*)\.so' | while read -r so; do
        cp -Ln "$so" "$out/lib/" 2>/dev/null || true
    done
}
cp "$build/dist/neap" "$out/bin/neap"
copy_libs "$build/neap"
for dir in /usr/lib/x86_64-linux-gnu /usr/lib64 /usr/lib; do # opened at run time
    [ -e "$dir/libcurl.so.4" ] && cp -L "$dir/libcurl.so.4" "$out/lib/" && copy_libs "$dir/libcurl.so.4" && break
done
if [ -f "$build/neap_cuda.so" ]; then mkdir -p "$out/lib/neap" && cp "$build/neap_cuda.so" "$out/lib/neap/"; else echo "dist: no CUDA backend was built: left out"; fi

redis=$(command -v redis-server || true)
version=$([ -n "$redis" ] && "$redis" --version | sed -n 's/.*v=\([0-9]*\.[0-9]*\).*/\1/p')
case "$version" in
[0-6].* | 7.[0-2])
    cp "$redis" "$out/libexec/redis-server"
    copy_libs "$redis"
    cp /usr/share/doc/redis-server/copyright "$out/libexec/redis-server.copyright" 2>/dev/null || cp /usr/share/doc/redis-tools/copyright "$out/libexec/redis-server.copyright"
    ;;
"") echo "dist: no redis-server here: install one on the machine it goes to" ;;
*) echo "dist: redis-server $version is not under the BSD licence: left out; install one on the machine it goes to" ;;
esac
cp LICENSE README.md "$out/"

tar -C "$build" -czf "$out.tar.gz" "$name"
echo "dist: $out.tar.gz ($(du -h "$out.tar.gz" | cut -f1))"
