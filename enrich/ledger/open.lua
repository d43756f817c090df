-- Begin a run, unless one is active, work is paused, or (for beat's tick) the last began too lately.
-- ARGV: trigger, new run id, half an interval (ms), how long to scan (ms), records kept.
local trigger, run = ARGV[1], ARGV[2]
local time = now()

local active = redis.call('GET', key('active_run'))
local refusal
if active == run then
  -- Asked once more, because the first answer was lost.
  return {'opened', run, number(redis.call('HGET', run_key(run), 'number'))}
end
if active then
  refusal = 'active'
elseif redis.call('EXISTS', key('paused')) == 1 then
  refusal = 'paused'
elseif trigger == 'beat' and time - number(redis.call('GET', key('last_start'))) < number(ARGV[3]) then
  refusal = 'too_soon'
end
if trigger == 'beat' then redis.call('SET', key('last_tick'), time) end
if refusal then
  if trigger == 'beat' then redis.call('HINCRBY', key('totals'), 'ticks_skipped', 1) end
  return {refusal, active or '', 0}
end

local n = redis.call('HINCRBY', key('totals'), 'runs', 1)
redis.call('SET', key('active_run'), run)
redis.call('SET', key('last_start'), time)
redis.call('HSET', run_key(run), 'number', n, 'trigger', trigger, 'state', 'running', 'started_at', time,
  'scan_until', time + number(ARGV[4]), 'page', 1, 'scan_done', 0, 'found', 0)
redis.call('LPUSH', key('runs'), run)
while redis.call('LLEN', key('runs')) > number(ARGV[5]) do
  local old = redis.call('RPOP', key('runs'))
  redis.call('DEL', run_key(old), run_key(old, 'late'), run_key(old, 'skipped'))
  redis.call('HDEL', key('history:owed'), old)
end
return {'opened', run, n}
