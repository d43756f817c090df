-- Count what was spent or met on the way, into a run that is known. Money is counted in any case.
-- ARGV: run, day's key, micro-dollars, what tells this call from any other (it is asked once more
-- where its answer was lost), then pairs of field and amount.
local run = ARGV[1]
if not redis.call('SET', key('counted:' .. ARGV[4]), 1, 'NX', 'PX', 120000) then return 0 end
if number(ARGV[3]) > 0 then
  redis.call('INCRBY', key('spent:' .. ARGV[2]), ARGV[3])
  redis.call('EXPIRE', key('spent:' .. ARGV[2]), 172800)
end
if redis.call('EXISTS', run_key(run)) == 0 then return 0 end
if number(ARGV[3]) > 0 then redis.call('HINCRBY', run_key(run), 'cost_micro_usd', ARGV[3]) end
for i = 5, #ARGV, 2 do
  local kind, sentence = string.match(ARGV[i], '^(%l+)|(.*)$')
  if kind then
    because(run, kind, sentence, ARGV[i + 1])
  else
    redis.call('HINCRBY', run_key(run), ARGV[i], ARGV[i + 1])
  end
  if ARGV[i] == 'errors' then redis.call('HINCRBY', key('totals'), 'errors', ARGV[i + 1]) end
end
return 1
