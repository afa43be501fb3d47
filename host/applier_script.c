/* applier_script.c: the applier's server-side half (see applier.h), run by Redis' own Lua 5.1: for a single Redis, and for one stream of a Cluster.
   KEYS: state hash, dead-letter stream, set of sensors, then the stream of each entry. Cluster: the stream's position hash, dead letters, the stream.
   ARGV: log UUID, store UUID, expected position ("" = none stored), new position, prefix and lifetime of idempotency keys, trim length,
   when the step was built (milliseconds since 1970), then a program.
   Cluster: the position's field, log UUID, expected value ("?N": any of this log up to N), new value, and the same from there on.
   The program is made of
     u KEY N          what follows are N readings of a batch with this idempotency key ("" = none)
     r NAME           a sensor's name for the set of sensors
     e M (t text)*    M entries, each for the next of the KEYS, as one field (chunk.h); E: the same, and the streams are trimmed
     l M (id t text)* the same of entries that came a while ago, with "MS-*" for an ID; L: as E. If the step itself waited, the others get such an ID
                      too. Where a stream has later entries, or MS is ahead of Redis' clock, or Redis is older than 7.0, it is the present time
   So a stream with several entries is among the KEYS several times, which costs what an index into the KEYS with each entry would; a stream with
   one entry saves the index (a tenth of all that Redis does for it), and when there are thousands of streams most have one.
   Answers {"ok", applied, duplicates, dead}, {"store", uuid} or {"at", position} if it was not run, or an error if Redis refused the
   first write (out of memory, read-only, disk): then nothing was written and the step may be tried again. */
#include "host/applier_priv.h"

#define SINGLE                                                                                                                                       \
    "local state, dead, sensors = KEYS[1], KEYS[2], KEYS[3]\n"                                                                                       \
    "local uuid, store, from, to, once, ttl, keep, built = unpack(ARGV, 1, 8)\n"                                                                     \
    "local known = redis.call('HMGET', state, 'store', uuid)\n"                                                                                      \
    "if known[1] ~= store then return {'store', known[1] or ''} end\n"                                                                               \
    "if (known[2] or '') ~= from then return {'at', known[2] or ''} end\n"

#define CLUSTER                                                                                                                                      \
    "local state, dead, sensors = KEYS[1], KEYS[2], nil\n"                                                                                           \
    "local uuid, log, from, to, once, ttl, keep, built = unpack(ARGV, 1, 8)\n"                                                                       \
    "local known = redis.call('HGET', state, uuid) or ''\n"                                                                                          \
    "if string.sub(from, 1, 1) == '?' then\n"                                                                                                        \
    "  local before = string.sub(known, 1, 37) == log .. ' ' and string.sub(known, 38) + 0 <= string.sub(from, 2) + 0\n"                             \
    "  if known ~= '' and not before then return {'at', known} end\n"                                                                                \
    "elseif known ~= from then\n"                                                                                                                    \
    "  return {'at', known}\n"                                                                                                                       \
    "end\n"

#define PROGRAM                                                                                                                                      \
    "local function wrong(key, want)\n"                                                                                                              \
    "  local k = redis.call('TYPE', key).ok\n"                                                                                                       \
    "  if k ~= 'none' and k ~= want then return redis.error_reply('NEAP the key ' .. key .. ' should be a ' .. want .. ' but is a ' .. k) end\n"     \
    "end\n"                                                                                                                                          \
    "local no = wrong(dead, 'stream') or sensors and wrong(sensors, 'set')\n"                                                                        \
    "if no then return no end\n"                                                                                                                     \
    "local pcall, KEYS, ARGV = redis.pcall, KEYS, ARGV\n"                                                                                            \
    "local wrote, skip, applied, twice, lost = false, false, 0, 0, 0\n"                                                                              \
    "local at, each = sensors and 4 or 3, sensors and 1 or 0\n"                                                                                      \
    "local i, last = 9, #ARGV\n"                                                                                                                     \
    "local function refuse(err, command, key)\n"                                                                                                     \
    "  local may = not (string.find(err, 'executing the script', 1, true) or string.find(err, 'ACL failure', 1, true))\n"                            \
    "  return redis.error_reply(may and err or 'NOPERM this user may not ' .. command .. ' ' .. key .. ': see ACL SETUSER')\n"                       \
    "end\n"                                                                                                                                          \
    "local clock = redis.call('TIME')[1] * 1000 + 1000\n"                                                                                            \
    "local stale = clock - built > 4000\n"                                                                                                           \
    "local seen, future\n"                                                                                                                           \
    "local function late(trim, key, id, time, text)\n"                                                                                               \
    "  if id ~= seen then seen, future = id, id ~= '*' and string.match(id, '^%d+') + 0 > clock end\n"                                               \
    "  if future then id = '*' end\n"                                                                                                                \
    "  local r = trim and pcall('XADD', key, 'MAXLEN', '~', keep, id, time, text) or not trim and pcall('XADD', key, id, time, text)\n"              \
    "  if id == '*' or type(r) ~= 'table' or not r.err then return r end\n"                                                                          \
    "  local misplaced = string.find(r.err, 'ID specified', 1, true) or string.find(r.err, 'stream ID', 1, true)\n"                                  \
    "  return misplaced and late(trim, key, '*', time, text) or r\n"                                                                                 \
    "end\n"                                                                                                                                          \
    "local function count(text) return select(2, string.gsub(text, ' ', '')) + 1 end\n"                                                              \
    "while i <= last do\n"                                                                                                                           \
    "  local op, err = ARGV[i], nil\n"                                                                                                               \
    "  if op == 'u' then\n"                                                                                                                          \
    "    local n = ARGV[i + 2] + 0\n"                                                                                                                \
    "    skip = false\n"                                                                                                                             \
    "    if ARGV[i + 1] ~= '' then\n"                                                                                                                \
    "      local r = pcall('SET', once .. ARGV[i + 1], '1', 'NX', 'EX', ttl)\n"                                                                      \
    "      err = type(r) == 'table' and r.err\n"                                                                                                     \
    "      if err and not wrote then return refuse(err, 'SET', once .. ARGV[i + 1]) end\n"                                                           \
    "      if r then wrote = wrote or not err else skip = true end\n"                                                                                \
    "    end\n"                                                                                                                                      \
    "    if skip then twice = twice + n else applied = applied + n end\n"                                                                            \
    "    i = i + 3\n"                                                                                                                                \
    "  elseif op == 'r' then\n"                                                                                                                      \
    "    if not skip then\n"                                                                                                                         \
    "      local r = pcall('SADD', sensors, ARGV[i + 1])\n"                                                                                          \
    "      err = type(r) == 'table' and r.err\n"                                                                                                     \
    "      if err and not wrote then return refuse(err, 'SADD', sensors) end\n"                                                                      \
    "      wrote = wrote or not err\n"                                                                                                               \
    "    end\n"                                                                                                                                      \
    "    i = i + 2\n"                                                                                                                                \
    "  else\n"                                                                                                                                       \
    "    local wide = (op == 'l' or op == 'L') and 3 or 2\n"                                                                                         \
    "    local upto = i + 1 + wide * ARGV[i + 1]\n"                                                                                                  \
    "    if skip then at = at + each * ARGV[i + 1] end\n"                                                                                            \
    "    for k = i + 2, skip and 0 or upto, wide do\n"                                                                                               \
    "      local key, time, text, r = KEYS[at], ARGV[k + wide - 2], ARGV[k + wide - 1]\n"                                                            \
    "      at = at + each\n"                                                                                                                         \
    "      if stale or wide == 3 then r = late(op == 'E' or op == 'L', key, wide == 3 and ARGV[k] or built .. '-*', time, text)\n"                   \
    "      elseif op == 'e' then r = pcall('XADD', key, '*', time, text)\n"                                                                          \
    "      else r = pcall('XADD', key, 'MAXLEN', '~', keep, '*', time, text) end\n"                                                                  \
    "      err = type(r) == 'table' and r.err\n"                                                                                                     \
    "      if not err then\n"                                                                                                                        \
    "        wrote = true\n"                                                                                                                         \
    "      elseif wrote or string.find(err, 'WRONGTYPE', 1, true) then\n"                                                                            \
    "        local n = count(text)\n"                                                                                                                \
    "        redis.call('XADD', dead, 'MAXLEN', '~', 100000, '*', 'key', key, 'reason', err, 'readings', time .. ' ' .. text)\n"                     \
    "        wrote, applied, lost = true, applied - n, lost + n\n"                                                                                   \
    "      else\n"                                                                                                                                   \
    "        return refuse(err, 'XADD', key)\n"                                                                                                      \
    "      end\n"                                                                                                                                    \
    "    end\n"                                                                                                                                      \
    "    i = upto + 1\n"                                                                                                                             \
    "  end\n"                                                                                                                                        \
    "end\n"                                                                                                                                          \
    "redis.call('HSET', state, uuid, to)\n"                                                                                                          \
    "return {'ok', applied, twice, lost}\n"

const char applier_script[] = SINGLE PROGRAM, applier_cluster_script[] = CLUSTER PROGRAM;
