rockspec_format = "3.0"
package = "neap"
version = "scm-1"
source = {url = "file://."}
description = {
    summary = "An embeddable Lua 5.4 host for people who own sensors: HTTP in, history in Redis, small networks that learn it",
    detailed = "Build it from a checkout: luarocks --lua-version=5.4 make rockspec/neap-scm-1.rockspec. The Debian packages it needs are in scripts/setup.sh.",
    license = "MIT",
}
dependencies = {"lua >= 5.4, < 5.5"}
build = {
    type = "make",
    build_target = "build",
    build_variables = {},
    install_target = "install",
    install_variables = {PREFIX = "$(PREFIX)"},
}
