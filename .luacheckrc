std = "lua54"
max_line_length = 160
codes = true
read_globals = {"neap"}
files["scripts/sensors.lua"] = {read_globals = {"sensor", "fleet"}}
files["spec/**/*_spec.lua"] = {std = "lua54+busted"}
files["spec/device/*.lua"] = {std = "lua54+busted"}
files["lua/meta/**"] = {ignore = {"121", "122", "211", "212", "221", "241", "631"}}
files["spec/bench/*.wrk.lua"] = {globals = {"wrk"}}
