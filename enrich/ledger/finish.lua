-- Close the active run once its scan is done and no chunk is open. Admits one caller. The run has
-- lasted until its last chunk was settled; what is done in between is not its time.
-- ARGV: run.
local run = ARGV[1]
if redis.call('GET', key('active_run')) ~= run then return 'over' end
local fields = redis.call('HMGET', run_key(run), 'scan_done', 'state', 'started_at', 'settled_at')
if fields[2] and (number(fields[1]) ~= 1 or redis.call('HLEN', run_key(run, 'open')) > 0) then
  return 'unfinished'
end
redis.call('DEL', key('active_run'))
if not fields[2] then return 'over' end
local ended = fields[4] or now()
redis.call('HSET', run_key(run), 'finished_at', ended,
  'state', fields[2] == 'running' and 'finished' or fields[2])
redis.call('HDEL', run_key(run), 'scan', 'survey')
redis.call('DEL', run_key(run, 'outbox'), run_key(run, 'indices'))
local lasted = ended - number(fields[3])
redis.call('HINCRBY', key('totals'), 'milliseconds', lasted)
redis.call('HINCRBY', key('totals'), 'ended|' .. (fields[2] == 'running' and 'finished' or fields[2]), 1)
took('run', RUN_BOUNDS, lasted)
owe(run)
return 'finished'
