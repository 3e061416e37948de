-- Tells which data this server holds, and whether they may have been lost just now.
-- KEYS[1]: a number that dies with the data, and the millisecond since when they are in doubt, on
--          this server's clock; 0 where they are not.
-- ARGV: 1 the number to set where there is none  2 the one the asker knew, 0 for none
--       3 milliseconds for which data are in doubt  4 seconds for which a server is
-- Answer: the number, and for how many milliseconds the data are still in doubt.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = ARGV[2] ~= '0'
local number, since = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (%d+)$')
since = tonumber(since or 0)
local is_new = not number
if is_new then
  number = ARGV[1]
  -- Nobody knows what a server held that has just begun. One that has run for long is a new one to
  -- us, or was emptied. Who may not ask takes it for new.
  local info = redis.pcall('INFO', 'server')
  local runs = type(info) == 'string' and string.match(info, 'uptime_in_seconds:(%d+)')
  if not runs or tonumber(runs) < tonumber(ARGV[4]) then since = now end
end
-- The asker knew other data, so these are not the first.
if known and number ~= ARGV[2] and since == 0 then since, is_new = now, true end
if is_new then
  redis.call('SET', KEYS[1], string.format('%s %.0f', number, since))
end
local doubt = since > 0 and since + tonumber(ARGV[3]) - now or 0
return { number, math.max(0, math.min(doubt, tonumber(ARGV[3]))) }
