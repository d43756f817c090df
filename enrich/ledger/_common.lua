-- Put before every move, after the names of counters (keyspace.py). KEYS[1] is the key prefix: a ledger lives on one Redis (as Celery's broker
-- must), so that the other keys may be derived. Time is Redis TIME in milliseconds, never a host's.
local prefix = KEYS[1]

local function key(name) return prefix .. name end
local function run_key(run, part) return prefix .. 'run:' .. run .. (part and (':' .. part) or '') end

local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function number(value) return tonumber(value or 0) or 0 end

-- State a caller needs to decide what to publish next: open chunks, next page, scan done, run state.
local function run_state(run)
  local fields = redis.call('HMGET', run_key(run), 'page', 'scan_done', 'state')
  return {redis.call('HLEN', run_key(run, 'open')), number(fields[1]), number(fields[2]), fields[3] or ''}
end

-- Note that a run's record is not, or no longer, in the history as it is: since when, and for which
-- time, so that whoever has written it can tell whether it was changed meanwhile.
local function owe(run)
  local since, times = string.match(redis.call('HGET', key('history:owed'), run) or '', '^(%d+) (%d+)$')
  redis.call('HSET', key('history:owed'), run,
    string.format('%d %d', number(since) > 0 and number(since) or now(), number(times) + 1))
end

-- Add to a counter of the run, and to the total that it is a part of. A correction takes away from
-- the run alone: totals never fall.
local function count(run, name, n)
  redis.call('HINCRBY', run_key(run), name, n)
  if TOTAL_OF[name] and number(n) > 0 then redis.call('HINCRBY', key('totals'), TOTAL_OF[name], n) end
end

-- Count a length of time, in milliseconds, into the buckets of this name.
local function took(name, bounds, ms)
  local bucket = 'inf'
  for _, bound in ipairs(bounds) do
    if ms <= bound * 1000 then
      bucket = tostring(bound)
      break
    end
  end
  redis.call('HINCRBY', key('totals'), name .. '|' .. bucket, 1)
  redis.call('HINCRBY', key('totals'), name .. '|ms', math.max(0, math.floor(ms)))
end

-- Count a reason of some kind in a hash: a field for each sentence, at most so many of a kind; what
-- else there is counts together.
local function count_reason(hash, kind, sentence, n, most)
  if sentence == '' or n == 0 then return end
  local field = kind .. '|' .. sentence
  if redis.call('HEXISTS', hash, field) == 0 then
    local known = 0
    for _, name in ipairs(redis.call('HKEYS', hash)) do
      if string.sub(name, 1, #kind + 1) == kind .. '|' then known = known + 1 end
    end
    if known >= most then field = kind .. '|other reasons' end
  end
  if redis.call('HINCRBY', hash, field, n) <= 0 then redis.call('HDEL', hash, field) end
end

-- Count why documents of a run were deferred (kind 'deferred') or work was tried again ('retried').
local function because(run, kind, sentence, n)
  count_reason(run_key(run), kind, sentence, n, 12)
end

-- Count money into the day. From `first` on, ARGV are pairs of field and amount, of which `paid|project`
-- is what a project paid of the micro-dollars; answers with the other pairs.
local function pay(day, micro_usd, first)
  local spent = key('spent:' .. day)
  if number(micro_usd) > 0 then
    redis.call('INCRBY', spent, micro_usd)
    redis.call('EXPIRE', spent, 172800)
    redis.call('HINCRBY', key('totals'), 'spent_micro_usd', micro_usd)
  end
  local others = {}
  for i = first, #ARGV, 2 do
    local project = string.match(ARGV[i], '^paid|(.*)$')
    if project then
      redis.call('HINCRBY', spent .. ':projects', project, ARGV[i + 1])
      redis.call('EXPIRE', spent .. ':projects', 172800)
    else
      others[#others + 1] = {ARGV[i], ARGV[i + 1]}
    end
  end
  return others
end

-- Note that a group of consumers is at work. The fifty seen last are kept, so that names which
-- change at each start do not fill Redis.
local function saw_group(group)
  local groups = key('realtime:groups')
  redis.call('ZADD', groups, now(), group)
  for _, old in ipairs(redis.call('ZRANGE', groups, 0, -51)) do
    redis.call('ZREM', groups, old)
    for _, part in ipairs({'totals', 'consumers', 'partitions'}) do
      redis.call('DEL', key('realtime:' .. part .. ':' .. old))
    end
  end
end

-- A chunk leaves the open set as deferred; kept aside with its lease, so that work which ends late
-- corrects it, and a redelivery can tell whether its owner may still do so.
local function defer(run, chunk, entry, why)
  redis.call('HDEL', run_key(run, 'open'), chunk)
  redis.call('HSET', run_key(run, 'late'), chunk,
    cjson.encode({n = entry.n, by = entry.by, claimed = entry.claimed, why = why}))
  count(run, 'deferred', entry.n)
  because(run, 'deferred', why, entry.n)
end
