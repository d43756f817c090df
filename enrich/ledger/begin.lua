-- Lease a chunk to one delivery. A lease that was neither released nor settled means that its
-- worker was lost, which counts against the chunk unless that host was shutting down.
-- ARGV: run, chunk, owner "host/pid", hard limit (ms), an owner known to be dead (or ''), and
-- what tells this call from any other, since it is asked once more where its answer was lost, and
-- the configuration with which the owner would write (JSON, or '' where it writes nothing).
local run, chunk, owner = ARGV[1], ARGV[2], ARGV[3]
local raw = redis.call('HGET', run_key(run, 'open'), chunk)
if not raw or redis.call('HGET', run_key(run), 'state') ~= 'running' then
  return {'closed', '', 0, '', 0}
end
if ARGV[7] ~= '' then
  -- The run's is that of whoever is first; one opened by an older version has none yet.
  redis.call('HSETNX', run_key(run), 'configuration', ARGV[7])
  local mine = cjson.decode(ARGV[7])
  for name, value in pairs(cjson.decode(redis.call('HGET', run_key(run), 'configuration'))) do
    if mine[name] and mine[name] ~= value then return {'other', '', 0, '', 0} end
  end
end
local entry = cjson.decode(raw)
local tried = entry.tried and 1 or 0
local time = now()
if entry.by ~= '' and entry.call == ARGV[6] then
  return {'go', owner, entry.losses, entry.suspect, tried}
end
if entry.by ~= '' then
  local left = entry.claimed + number(ARGV[4]) - time
  if left > 0 and entry.by ~= ARGV[5] then return {'busy', entry.by, left, '', tried} end
  local host = string.match(entry.by, '^(.*)/') or ''
  if redis.call('EXISTS', key('shutdown:' .. host)) == 0 then
    entry.losses = entry.losses + 1
  else
    entry.suspect = ''
  end
end
entry.by, entry.claimed, entry.tried, entry.call = owner, time, true, ARGV[6]
redis.call('HSET', run_key(run, 'open'), chunk, cjson.encode(entry))
redis.call('HSET', run_key(run), 'last_begin', time)
return {'go', owner, entry.losses, entry.suspect, tried}
