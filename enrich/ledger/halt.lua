-- End the fan-out of a run and defer its open chunks. Work already under way corrects that later.
-- ARGV: run, new state (halted | abandoned), reason, and the same as the deferrals' reason.
local run = ARGV[1]
if redis.call('HGET', run_key(run), 'state') ~= 'running' then return 0 end
local open = redis.call('HGETALL', run_key(run, 'open'))
for i = 1, #open, 2 do defer(run, open[i], cjson.decode(open[i + 1]), ARGV[4]) end
redis.call('HSET', run_key(run), 'state', ARGV[2], 'halt_reason', ARGV[3], 'scan_done', 1, 'more', 1,
  'stopped_by', 'halt')
if ARGV[2] == 'halted' then count(run, 'errors', 1) end
return 1
