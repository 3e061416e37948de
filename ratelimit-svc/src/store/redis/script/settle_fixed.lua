-- Settles the hits of one request in one step where all windows are fixed; this is what settle.lua
-- does for those, and `decide::settle` over again.
-- KEYS: one counter per hit; the same counter may occur again.
-- ARGV: 1 when refused requests move nothing, then per hit: amount, refund (1), limit,
--       role (0 enforced, 1 quota, 2 observer), seconds to live.
-- Answer, per hit: value, over (1), moved (1).
local all_or_nothing = ARGV[1] == '1'
-- One hit that goes up or not: what comes below, without its tables, for a fifth less.
if #KEYS == 1 and all_or_nothing and ARGV[3] ~= '1' then
  local before = redis.call('GET', KEYS[1])
  local value = tonumber(before or 0)
  local after = value + tonumber(ARGV[2])
  if value >= 0 then
    if after > tonumber(ARGV[4]) then return { value, 1, 0 } end
    if after > value then
      redis.call('INCRBY', KEYS[1], ARGV[2])
      if not before then redis.call('EXPIRE', KEYS[1], ARGV[6]) end
    end
    return { after, 0, 1 }
  end
end
local before, value, ttl = {}, {}, {}
local answer = {}
local quota, quota_over, refused = 0, 0, false
for i, key in ipairs(KEYS) do
  local at = 2 + (i - 1) * 5
  local amount, refund = tonumber(ARGV[at]), ARGV[at + 1] == '1'
  local limit, role = tonumber(ARGV[at + 2]), ARGV[at + 3]
  if value[key] == nil then
    before[key] = redis.call('GET', key)
    value[key] = math.max(0, tonumber(before[key] or 0))
    ttl[key] = ARGV[at + 4]
  end
  local after = refund and math.max(0, value[key] - amount) or value[key] + amount
  local over = after > limit
  local moved = not all_or_nothing or refund or not over
  if moved then value[key] = after end
  answer[i * 3 - 2], answer[i * 3 - 1], answer[i * 3] = value[key], over and 1 or 0, moved and 1 or 0
  local vetoes = over and not refund
  if vetoes and role == '0' then refused = true end
  if role == '1' then
    quota = quota + 1
    if vetoes then quota_over = quota_over + 1 end
  end
end
if quota > 0 and quota == quota_over then refused = true end
if refused and all_or_nothing then
  for i, key in ipairs(KEYS) do
    answer[i * 3 - 2], answer[i * 3] = math.max(0, tonumber(before[key] or 0)), 0
  end
  return answer
end
for key, now in pairs(value) do
  local delta = now - tonumber(before[key] or 0)
  if delta ~= 0 then
    redis.call('INCRBY', key, string.format('%.0f', delta))
    if not before[key] then redis.call('EXPIRE', key, ttl[key]) end
  end
end
return answer
