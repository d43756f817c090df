-- Count what was spent or met on the way, into a run that is known. Money is counted in any case.
-- ARGV: run, day's key, micro-dollars, what tells this call from any other (it is asked once more
-- where its answer was lost), then pairs of field and amount.
-- What a project paid of the micro-dollars is such a pair: `paid|project`.
local run = ARGV[1]
if not redis.call('SET', key('counted:' .. ARGV[4]), 1, 'NX', 'PX', 120000) then return 0 end
local amounts = pay(ARGV[2], ARGV[3], 5)
if redis.call('EXISTS', run_key(run)) == 0 then return 0 end
if number(ARGV[3]) > 0 then
  redis.call('HINCRBY', run_key(run), 'cost_micro_usd', ARGV[3])
  -- What was confirmed is spent by runs alone; DECRBY leaves the time at which it ends.
  if redis.call('EXISTS', key('confirmed')) == 1 then redis.call('DECRBY', key('confirmed'), ARGV[3]) end
end
for _, pair in ipairs(amounts) do
  local field, amount = pair[1], pair[2]
  local kind, sentence = string.match(field, '^(%l+)|(.*)$')
  if kind then
    because(run, kind, sentence, amount)
  else
    count(run, field, amount)
  end
end
return 1
