"""What the cache server runs: each of these is one round trip, and nothing else happens on the server meanwhile."""

from __future__ import annotations

_VERSION_MS = 24 * 3600 * 1000
_READ = """
local versions = redis.call('MGET', unpack(KEYS))
for i = 1, #KEYS do
  if not versions[i] then
    versions[i] = ARGV[3] .. i
    redis.call('SET', KEYS[i], versions[i], 'PX', VERSION_MS)
  end
end
local key = ARGV[1] .. table.concat(versions, '.') .. ARGV[2]
if ARGV[4] == '' then
  local size = redis.pcall('STRLEN', key)
  if type(size) == 'table' then
    redis.call('DEL', key)
  elseif size > LARGE and size <= MAX_BYTES then
    return key .. '>000000000000'
  elseif size > 0 and size <= LARGE then
    return redis.call('GET', key) .. string.format('+%012d', redis.call('PTTL', key))
  end
end
if redis.call('SET', key .. ':load', ARGV[3], 'NX', 'PX', LOAD_MS) then return key .. '!000000000000' end
return key .. '?000000000000'
"""
TAIL_BYTES = 13
"""What READ answers ends in a mark and twelve digits."""
ENTRY, TAKEN, ABSENT, LARGE = b"+", b"!", b"?", b">"
"""The marks: an entry, with the milliseconds it has left · its key: the caller is to load it · another is · it stands
there, and is so large that it is better fetched without a script, which copies it twice."""
LARGE_BYTES = 2**12


def read_script(max_bytes: int, load_ms: int) -> bytes:
    """The script READ: the entry that is valid now, or else its key, and whether the caller is to load it.

    The entry's key holds the version of each table that it was read from, in KEYS; a version that is missing (a table
    was written, the server is new, or has evicted it) is made here and never was before, so nothing stale can come
    back. It is forgotten after a day, so that names that nobody reads any more take no room for ever. ARGV: what
    stands in the key before the versions and after them, a text never used before that becomes the caller's token, and
    anything but '' to be given no entry (it was unreadable, or is to be loaded anew). An entry of more than `max_bytes`
    is none; `load_ms` is for how long a caller holds the load.
    """
    script = _READ.replace("MAX_BYTES", str(max_bytes)).replace("LOAD_MS", str(load_ms))
    script = script.replace("LARGE", str(min(LARGE_BYTES, max_bytes)))
    return script.replace("VERSION_MS", str(_VERSION_MS)).encode()


FILL = b"""
if ARGV[2] ~= '' then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
if redis.call('GET', KEYS[1] .. ':load') == ARGV[1] then redis.call('DEL', KEYS[1] .. ':load') end
return 1
"""
"""Keeps an entry under the key that READ gave before it was loaded, and lets go of the load. ARGV: token, entry, ms."""
