-- Note that a worker lives, and answer with the note of the living one that has been there longest:
-- its configuration is the deployment's.
-- ARGV: token of the process, its note (JSON), how long a note speaks for its worker (us), how long
-- it is kept (ms). A note is stored as "since seen note", times in us of Redis TIME.
local workers, token = key('workers'), ARGV[1]
local t = redis.call('TIME')
local time = t[1] * 1000000 + t[2]
local function times(stored) return string.match(stored, '^(%d+) (%d+) ') end
local since, seen
local mine = redis.call('HGET', workers, token)
if mine then since, seen = times(mine) end
if not since or time - number(seen) > number(ARGV[3]) then since = string.format('%.0f', time) end
redis.call('HSET', workers, token, since .. ' ' .. string.format('%.0f', time) .. ' ' .. ARGV[2])
redis.call('PEXPIRE', workers, ARGV[4])
local first, first_since, first_token
local all = redis.call('HGETALL', workers)
for i = 1, #all, 2 do
  local from, last = times(all[i + 1])
  if not from or time - number(last) > 1000 * number(ARGV[4]) then
    redis.call('HDEL', workers, all[i])
  elseif time - number(last) <= number(ARGV[3]) then
    local earlier = not first or number(from) < first_since
      or (number(from) == first_since and all[i] < first_token)
    if earlier then first, first_since, first_token = all[i + 1], number(from), all[i] end
  end
end
return {first_token, first, string.format('%.0f', time)}
