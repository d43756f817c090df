-- Count what a group of consumers spent or met on the way.
-- ARGV: group, day's key, micro-dollars, what tells this call from any other (it is asked once more
-- where its answer was lost), then pairs of field and amount; `paid|project` as in count.lua.
local totals = key('realtime:totals:' .. ARGV[1])
if not redis.call('SET', key('counted:' .. ARGV[4]), 1, 'NX', 'PX', 120000) then return 0 end
saw_group(ARGV[1])
for _, pair in ipairs(pay(ARGV[2], ARGV[3], 5)) do
  redis.call('HINCRBY', totals, pair[1], pair[2])
end
if number(ARGV[3]) > 0 then redis.call('HINCRBY', totals, 'cost_micro_usd', ARGV[3]) end
return 1
