-- Defer chunks past their deadline. One that was begun counts from its lease; one that only waits,
-- from the run's last sign of life, so that a slow API never turns waiting into loss.
-- ARGV: run, deadline (ms), how that is told as a reason.
local run = ARGV[1]
local time = now()
local last_begin = number(redis.call('HGET', run_key(run), 'last_begin'))
local open = redis.call('HGETALL', run_key(run, 'open'))
local expired = 0
for i = 1, #open, 2 do
  local entry = cjson.decode(open[i + 1])
  local since = entry.by ~= '' and entry.claimed or math.max(entry.registered, last_begin)
  if time - since > number(ARGV[2]) then
    defer(run, open[i], entry, ARGV[3])
    expired = expired + 1
  end
end
if expired > 0 then count(run, 'errors', expired) end
local s = run_state(run)
return {expired, s[1], s[2], s[3], s[4]}
