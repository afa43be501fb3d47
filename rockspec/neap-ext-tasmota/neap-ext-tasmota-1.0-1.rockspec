rockspec_format = "3.0"
package = "neap-ext-tasmota"
version = "1.0-1"
source = {url = "file://."}
description = {
    summary = "Readings from Tasmota devices, for neap",
    detailed = "A route and a decoder for the JSON that Tasmota plugs and sensor boards send. Also the model of a pure-Lua extension.",
    license = "MIT",
}
dependencies = {"lua >= 5.4, < 5.5"}
build = {type = "builtin", modules = {["neap.ext.tasmota"] = "lua/neap/ext/tasmota.lua"}}
