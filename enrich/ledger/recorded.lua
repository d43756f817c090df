-- Take runs off what is owed to the history, unless they were changed since their records were read.
-- ARGV: pairs of run and what was noted of it then.
for i = 1, #ARGV, 2 do
  if redis.call('HGET', key('history:owed'), ARGV[i]) == ARGV[i + 1] then
    redis.call('HDEL', key('history:owed'), ARGV[i])
  end
end
return 1
