-- Note that a consumer lives, what it is doing, and how far it is in the partitions that it has.
-- ARGV: group, consumer, its note (JSON), what it is doing in one word, milliseconds that this speaks
-- for it, milliseconds that one which died is remembered, partitions (JSON: name, committed, done,
-- note), milliseconds that a partition is remembered.
-- A consumer is stored as "seen until doing_since doing note", a partition as "seen moved committed
-- note".
local group, consumer, doing = ARGV[1], ARGV[2], ARGV[4]
local time = now()
saw_group(group)

local consumers = key('realtime:consumers:' .. group)
local doing_since = time
for _, name in ipairs(redis.call('HKEYS', consumers)) do
  local stored = redis.call('HGET', consumers, name)
  local _, ends, since, what = string.match(stored, '^(%d+) (%d+) (%d+) (%S+) ')
  if name == consumer and what == doing and number(ends) > time then doing_since = since end
  if not ends or number(ends) + number(ARGV[6]) < time then redis.call('HDEL', consumers, name) end
end
redis.call('HSET', consumers, consumer,
  table.concat({time, time + number(ARGV[5]), doing_since, doing, ARGV[3]}, ' '))
redis.call('PEXPIRE', consumers, number(ARGV[5]) + number(ARGV[6]))

-- A partition moves where its committed offset does, and where it goes to another consumer. One with
-- nothing left has no reason to, nor one whose consumer is paused and says why.
local partitions = key('realtime:partitions:' .. group)
for _, partition in ipairs(cjson.decode(ARGV[7])) do
  local stored = redis.call('HGET', partitions, partition.name)
  local _, moved, committed, note = string.match(stored or '', '^(%d+) (%d+) (%S+) (.*)$')
  if partition.done or doing == 'paused' or committed ~= partition.committed
    or cjson.decode(note).consumer ~= consumer then moved = time end
  redis.call('HSET', partitions, partition.name,
    table.concat({time, moved, partition.committed, partition.note}, ' '))
end
for _, name in ipairs(redis.call('HKEYS', partitions)) do
  local seen = string.match(redis.call('HGET', partitions, name), '^(%d+) ')
  if number(seen) + number(ARGV[8]) < time then redis.call('HDEL', partitions, name) end
end
redis.call('PEXPIRE', partitions, ARGV[8])
return 1
