-- Add what the history knows of totals to those of this Redis, once in its life; and owe the history
-- every run that ended before anybody kept one.
-- ARGV: pairs of a total's field and what is added.
if redis.call('HSETNX', key('totals'), 'history', 1) == 0 then return 0 end
for i = 1, #ARGV, 2 do redis.call('HINCRBY', key('totals'), ARGV[i], ARGV[i + 1]) end
for _, run in ipairs(redis.call('LRANGE', key('runs'), 0, -1)) do
  if redis.call('HEXISTS', run_key(run), 'finished_at') == 1 then owe(run) end
end
return 1
