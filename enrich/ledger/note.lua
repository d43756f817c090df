-- Change the lease of an open chunk: give it back (`released`), or name the text that is about to
-- be handled alone (`suspect`), so that the one which takes its worker down is known afterwards. Of
-- a chunk that was deferred meanwhile only the former: the next delivery may then count what this
-- one wrote.
-- ARGV: run, chunk, owner, what, value.
local part = 'open'
local raw = redis.call('HGET', run_key(ARGV[1], part), ARGV[2])
if not raw and ARGV[4] == 'released' then
  part = 'late'
  raw = redis.call('HGET', run_key(ARGV[1], part), ARGV[2])
end
if not raw then return 0 end
local entry = cjson.decode(raw)
if entry.by ~= ARGV[3] then return 0 end
if ARGV[4] == 'released' then
  entry.by, entry.claimed, entry.suspect = '', 0, ''
  entry.registered = now()
else
  entry.suspect = ARGV[5]
end
redis.call('HSET', run_key(ARGV[1], part), ARGV[2], cjson.encode(entry))
return 1
