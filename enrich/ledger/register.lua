-- Take one page into the run, if it is the run's next one: its chunks, its cursors, its messages.
-- ARGV: run, page, chunks {id: documents} (JSON), scan (JSON), scan done (0/1), messages (JSON),
-- skipped {index: reason} (JSON), more (0/1), why the scan stopped, indices of the page (JSON).
local run, page = ARGV[1], number(ARGV[2])
local fields = redis.call('HMGET', run_key(run), 'state', 'page', 'scan_done')
if fields[1] ~= 'running' or fields[3] == '1' then return 'closed' end
if number(fields[2]) ~= page then return 'stale' end

local time = now()
local found, chunks = 0, 0
for chunk, n in pairs(cjson.decode(ARGV[3])) do
  redis.call('HSET', run_key(run, 'open'), chunk,
    cjson.encode({n = n, losses = 0, by = '', claimed = 0, registered = time, suspect = ''}))
  found = found + n
  chunks = chunks + 1
end
count(run, 'found', found)
count(run, 'chunks', chunks)
redis.call('HSET', run_key(run), 'page', page + 1, 'scan', ARGV[4], 'scan_done', ARGV[5])
redis.call('HDEL', run_key(run), 'survey')
-- A chunk may have said before that the run leaves logs.
if ARGV[8] == '1' then redis.call('HSET', run_key(run), 'more', 1, 'stopped_by', ARGV[9]) end
for index, reason in pairs(cjson.decode(ARGV[7])) do
  redis.call('HSET', run_key(run, 'skipped'), index, reason)
end
for _, index in ipairs(cjson.decode(ARGV[10])) do redis.call('SADD', run_key(run, 'indices'), index) end
redis.call('SET', run_key(run, 'outbox'), ARGV[6])
return 'registered'
