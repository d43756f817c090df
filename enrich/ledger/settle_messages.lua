-- Count messages of Kafka once, however often they are delivered: a partition's position moves from
-- where its caller found it to behind the last message, together with the counts. Who finds it
-- elsewhere changes nothing, and learns where it is.
-- ARGV: group, what tells this call from any other (it is asked once more where its answer was
-- lost), portions (JSON: partition, expected, upto, counts, because [[kind, sentence, n, most]]),
-- batches, milliseconds that a position is kept, minutes of a window.
-- Positions are strings: a double has too few digits for them. "" is none.
local group, call = ARGV[1], key('counted:' .. ARGV[2])
local before = redis.call('GET', call)
if before then return cjson.decode(before) end
saw_group(group)
local totals, width = key('realtime:totals:' .. group), 60000 * number(ARGV[6])
local time = now()
local window = key('realtime:window:' .. math.floor(time / width) .. ':' .. group)
local answers = {}
for i, portion in ipairs(cjson.decode(ARGV[3])) do
  local position = key('realtime:position:' .. portion.partition)
  local found = redis.call('GET', position) or ''
  if found == portion.expected then
    redis.call('SET', position, portion.upto, 'PX', ARGV[5])
    for name, n in pairs(portion.counts) do
      redis.call('HINCRBY', totals, name, n)
      redis.call('HINCRBY', window, name, n)
    end
    for _, why in ipairs(portion.because) do count_reason(totals, unpack(why)) end
    answers[i] = 'counted'
  else
    answers[i] = found
  end
end
redis.call('PEXPIRE', window, 3 * width)
redis.call('HSETNX', totals, 'since', time)
if number(ARGV[4]) > 0 then
  redis.call('HINCRBY', totals, 'batches', ARGV[4])
  redis.call('HSET', totals, 'last_batch_at', time)
end
redis.call('SET', call, cjson.encode(answers), 'PX', 120000)
return answers
