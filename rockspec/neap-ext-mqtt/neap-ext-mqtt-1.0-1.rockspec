rockspec_format = "3.0"
package = "neap-ext-mqtt"
version = "1.0-1"
source = {url = "file://."}
description = {
    summary = "Readings from an MQTT broker, for neap",
    detailed = "Subscribes through libmosquitto (Debian: libmosquitto-dev) in neap's own loop; a reconnecting reader, and the command `neap mqtt`.",
    license = "MIT",
}
dependencies = {"lua >= 5.4, < 5.5"}
-- neap_ext.h comes with neap; `neap rocks` names its directory by itself, plain luarocks wants NEAP_INCDIR=...
external_dependencies = {NEAP = {header = "neap_ext.h"}, MOSQUITTO = {header = "mosquitto.h"}}
build = {
    type = "builtin",
    modules = {
        ["neap.ext.mqtt"] = "lua/neap/ext/mqtt.lua",
        ["neap.cmd.mqtt"] = "lua/neap/cmd/mqtt.lua",
        ["neap.ext.mqtt.core"] = {sources = {"src/mqtt.c"}, libraries = {"mosquitto"}, incdirs = {"$(NEAP_INCDIR)", "$(MOSQUITTO_INCDIR)"}},
    },
}
