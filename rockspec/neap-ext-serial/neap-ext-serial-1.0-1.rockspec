rockspec_format = "3.0"
package = "neap-ext-serial"
version = "1.0-1"
source = {url = "file://."}
description = {
    summary = "Boards on a serial port that print name:value lines, for neap",
    detailed = "A serial port whose read waits in the loop, and the command `neap serial`. Also the model of an extension with a C part.",
    license = "MIT",
}
dependencies = {"lua >= 5.4, < 5.5"}
-- neap_ext.h comes with neap; `neap rocks` names its directory by itself, plain luarocks wants NEAP_INCDIR=...
external_dependencies = {NEAP = {header = "neap_ext.h"}}
build = {
    type = "builtin",
    modules = {
        ["neap.ext.serial"] = "lua/neap/ext/serial.lua",
        ["neap.cmd.serial"] = "lua/neap/cmd/serial.lua",
        ["neap.ext.serial.core"] = {sources = {"src/serial.c"}, incdirs = {"$(NEAP_INCDIR)"}},
    },
}
