-- Let go of a page's messages once all are with the broker, so that a second request for the page
-- does not send them again.
-- ARGV: run, page.
local run, page = ARGV[1], number(ARGV[2])
if number(redis.call('HGET', run_key(run), 'page')) == page + 1 then
  redis.call('DEL', run_key(run, 'outbox'))
end
