-- Close a chunk once, with the outcome of each of its documents. A chunk that its deadline or a
-- halt closed as deferred, and that was finished late, corrects the record, also after the run.
-- ARGV: run, chunk, outcomes {name: n} (JSON), errors, why documents were deferred {sentence: n}.
local run, chunk = ARGV[1], ARGV[2]
local outcomes = cjson.decode(ARGV[3])
local sum = 0
for _, n in pairs(outcomes) do sum = sum + n end

local raw = redis.call('HGET', run_key(run, 'open'), chunk)
local late = not raw and redis.call('HGET', run_key(run, 'late'), chunk)
if not raw and not late then
  local s = run_state(run)
  return {'closed', s[1], s[2], s[3], s[4]}
end
local entry = cjson.decode(late or raw)
local expected = entry.n
if sum ~= expected then
  return redis.error_reply('outcomes of ' .. chunk .. ' sum to ' .. sum .. ', registered were ' .. expected)
end

if late then
  redis.call('HDEL', run_key(run, 'late'), chunk)
  count(run, 'deferred', -expected)
  because(run, 'deferred', entry.why or '', -expected)
else
  redis.call('HDEL', run_key(run, 'open'), chunk)
end
local vectors = 0
for name, n in pairs(outcomes) do
  if n > 0 then
    count(run, name, n)
    if IS_VECTOR[name] then vectors = vectors + n end
  end
end
local unexplained = number(outcomes['deferred'])
for sentence, n in pairs(cjson.decode(ARGV[5] or '{}')) do
  because(run, 'deferred', sentence, n)
  unexplained = unexplained - n
end
-- What stays deferred keeps the reason that it was deferred for.
if unexplained > 0 then because(run, 'deferred', entry.why or '', unexplained) end
count(run, 'vectors_written', vectors)
count(run, 'errors', number(ARGV[4]) + number(outcomes['failed']))
-- A lease that was given back and taken again counts from the last time.
if not late and number(entry.claimed) > 0 then took('chunk', CHUNK_BOUNDS, now() - entry.claimed) end
-- The record of a run that is over was, or will be, written without this.
if late and redis.call('GET', key('active_run')) ~= run then owe(run) end
local s = run_state(run)
if not late and s[1] == 0 and s[3] == 1 then
  redis.call('HSET', run_key(run), 'settled_at', now())
end
return {late and 'corrected' or 'settled', s[1], s[2], s[3], s[4]}
