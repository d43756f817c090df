-- A caller with priority notes what it takes or wants, so that the others leave it room. How much such
-- callers take at once is told by two buckets that only they fill; the most that was seen is kept as
-- the reserve, and forgotten slowly.
-- KEYS: the notes. ARGV: milliseconds' worth of the first bucket and of the second, 1 if they were
-- taken, milliseconds to wait if they were not; then of the reserve: the least, the most, after how
-- long half is forgotten; how long others stay away after the wait, and how long a note is kept, all
-- in milliseconds.
local t = redis.call('TIME')
local now = t[1] * 1000 + t[2] / 1000
local least, most, half_life = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local known = redis.call('HMGET', KEYS[1], 'first', 'second', 'first_due', 'second_due', 'waits', 'at')
local kept = 0.5 ^ ((now - (known[6] or now)) / half_life)
local wait = tonumber(ARGV[4])
local notes = {'at', string.format('%.3f', now)}
local function note(name, value)
  table.insert(notes, name)
  table.insert(notes, string.format('%.3f', value))
end
for i, name in ipairs({'first', 'second'}) do
  local takes = tonumber(ARGV[i])
  local due = math.max(tonumber(known[i + 2] or 0), now) + takes
  -- Who waits shows that the reserve was too small: others with priority came at the same time.
  local old = (known[i] or 0) * kept + math.min(wait, takes)
  note(name, math.min(most, math.max(least, due - now, old)))
  if ARGV[3] == '1' then note(name .. '_due', due) end
end
if wait > 0 then note('waits', math.max(tonumber(known[5] or 0), now + wait + ARGV[8])) end
redis.call('HSET', KEYS[1], unpack(notes))
redis.call('PEXPIRE', KEYS[1], ARGV[9])
