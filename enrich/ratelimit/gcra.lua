-- Two buckets that refill evenly (generic cell rate algorithm), shared by all workers: one permit
-- of the first and an amount of the second are taken, or neither. Answers 0, or milliseconds to wait.
-- KEYS: first bucket, second bucket, pause, notes of callers with priority, and where it is counted,
-- what was taken within this minute and the one before. ARGV: the first's limit a
-- minute, the second's, the amount, how many milliseconds' worth may be taken at once when nothing
-- was taken for long, 1 if the caller yields to those with priority, and for how many seconds a count
-- is kept.
local t = redis.call('TIME')
local now = t[1] * 1000 + t[2] / 1000
local pause = redis.call('PTTL', KEYS[3])
if pause > 0 then return pause end

local burst = tonumber(ARGV[4])
local wait = 0
local reserve = {}
if ARGV[5] == '1' then
  reserve = redis.call('HMGET', KEYS[4], 'first', 'second', 'waits')
  wait = math.max(0, (reserve[3] or now) - now)
end
local due = {}
local costs = {{KEYS[1], tonumber(ARGV[1]), 1}, {KEYS[2], tonumber(ARGV[2]), tonumber(ARGV[3])}}
for i, cost in ipairs(costs) do
  if cost[2] > 0 then
    local takes = 60000 * cost[3] / cost[2]
    local at = math.max(tonumber(redis.call('GET', cost[1]) or 0), now)
    -- A request dearer than the burst is let through once the bucket is full.
    wait = math.max(wait, at - now - math.max(burst - (reserve[i] or 0) - takes, 0))
    due[i] = {cost[1], at + takes}
  end
end
if wait > 0 then return math.ceil(wait) end
for _, d in pairs(due) do
  redis.call('SET', d[1], string.format('%.3f', d[2]), 'PX', math.ceil(d[2] - now) + burst)
end
if KEYS[5] and next(due) then
  local minute = math.floor(now / 60000)
  local kept = redis.call('HMGET', KEYS[5], 'minute', 'first', 'second')
  if tonumber(kept[1] or 0) ~= minute then
    local goes_on = tonumber(kept[1] or 0) == minute - 1
    redis.call('HSET', KEYS[5], 'minute', minute, 'first', 0, 'second', 0,
      'last_first', goes_on and kept[2] or 0, 'last_second', goes_on and kept[3] or 0)
    redis.call('EXPIRE', KEYS[5], ARGV[6])
  end
  redis.call('HINCRBY', KEYS[5], 'first', 1)
  redis.call('HINCRBY', KEYS[5], 'second', ARGV[3])
end
return 0
