-- Settles the hits of one request in one step; this is `decide::settle` and `decide::algorithm`
-- over again. All numbers are integers that a double holds exactly.
-- KEYS: one counter per hit; the same counter may occur again.
-- ARGV: 1 when refused requests move nothing, then per hit eleven:
--   1 kind  2 amount  3 refund (1)  4 limit  5 role (0 enforced, 1 quota, 2 observer)  6 ttl, then
--   fixed    (f): none
--   sliding  (s): 7 window number  8 weight of the last window
--   bucket   (b): 7 now in us  8, 9 cost in us and 1/limit us  10, 11 burst tolerance likewise
-- Answer, per hit: three numbers of state, over (1), moved (1).
local ONE, COUNT_MAX = 1048576, 4294967295

-- Instants are whole microseconds and a part in 1/limit of one.
local function later(a, a_part, b, b_part) return a > b or (a == b and a_part > b_part) end

local kinds = {}

kinds.f = {
  read = function(raw) return { math.max(0, tonumber(raw)), 0, 0 } end,
  roll = function(_, state) return state or { 0, 0, 0 } end,
  apply = function(hit, state)
    local after = state[1] + hit.amount
    if hit.refund then after = math.max(0, state[1] - hit.amount) end
    return { after, 0, 0 }, after > hit.limit
  end,
}

-- Window number, hits in it, hits in the one before.
kinds.s = {
  roll = function(hit, state)
    local number = hit.args[1]
    if not state then return { number, 0, 0 } end
    if state[1] >= number then return { math.min(state[1], number + 1), state[2], state[3] } end
    if state[1] + 1 == number then return { number, 0, state[2] } end
    return { number, 0, 0 }
  end,
  apply = function(hit, state)
    local current, previous = state[2], state[3]
    if hit.refund then
      previous = math.max(0, previous - math.max(0, hit.amount - current))
      current = math.max(0, current - hit.amount)
    else
      current = current + hit.amount
    end
    local weight = hit.args[2]
    if state[1] > hit.args[1] then weight = ONE end
    local used = math.ceil(math.min(previous, COUNT_MAX) * weight / ONE) + current
    return { state[1], current, previous }, used > hit.limit
  end,
  lives = function(hit) return hit.ttl * 1000 end,
}

-- The theoretical arrival time and its part.
kinds.b = {
  roll = function(hit, state)
    local now, rate = hit.args[1], math.max(hit.limit, 1)
    if not state then return { now, 0, 0 } end
    local tat, part = state[1], math.min(state[2], rate - 1)
    if not later(tat, part, now, 0) then return { now, 0, 0 } end
    local top, top_part = now + hit.args[4], hit.args[5]
    if later(tat, part, top, top_part) then return { top, top_part, 0 } end
    return { tat, part, 0 }
  end,
  apply = function(hit, state)
    local now, rate = hit.args[1], math.max(hit.limit, 1)
    local tat, part = state[1], state[2]
    if hit.refund then
      tat, part = tat - hit.args[2], part - hit.args[3]
      if part < 0 then tat, part = tat - 1, part + rate end
      if not later(tat, part, now, 0) then tat, part = now, 0 end
    else
      tat, part = tat + hit.args[2], part + hit.args[3]
      if part >= rate then tat, part = tat + 1, part - rate end
    end
    return { tat, part, 0 }, later(tat, part, now + hit.args[4], hit.args[5])
  end,
  lives = function(hit, state)
    return math.ceil((state[1] - hit.args[1]) / 1000) + hit.ttl * 1000
  end,
}

local function three(raw)
  local a, b, c = string.match(raw, '^(%d+) (%d+) (%d+)$')
  if a then return { tonumber(a), tonumber(b), tonumber(c) } end
end

local all_or_nothing = ARGV[1] == '1'
local raw, before, value, last = {}, {}, {}, {}
local hits, answer = {}, {}
local quota, quota_over, refused = 0, 0, false

local function tell(i, state, over, moved)
  local at = (i - 1) * 5
  answer[at + 1], answer[at + 2], answer[at + 3] = state[1], state[2], state[3]
  answer[at + 4], answer[at + 5] = over and 1 or 0, moved and 1 or 0
end

for i, key in ipairs(KEYS) do
  local at = 2 + (i - 1) * 11
  local hit = {
    kind = kinds[ARGV[at]], fixed = ARGV[at] == 'f', amount = tonumber(ARGV[at + 1]),
    refund = ARGV[at + 2] == '1', limit = tonumber(ARGV[at + 3]), role = ARGV[at + 4],
    ttl = tonumber(ARGV[at + 5]), args = {},
  }
  for n = 1, 5 do hit.args[n] = tonumber(ARGV[at + 5 + n]) end
  hits[i] = hit
  if raw[key] == nil then
    raw[key] = redis.call('GET', key)
    before[key] = raw[key] and (hit.kind.read or three)(raw[key]) or nil
    value[key] = before[key]
  end
  local state = hit.kind.roll(hit, value[key])
  local after, over = hit.kind.apply(hit, state)
  local moved = hit.refund or not over or (hit.fixed and not all_or_nothing)
  if moved then
    state = after
    if hit.amount > 0 then last[key] = { hit = hit, state = state } end
  end
  value[key] = state
  tell(i, state, over, moved)
  hit.over = over
  local vetoes = over and not hit.refund
  if vetoes and hit.role == '0' then refused = true end
  if hit.role == '1' then
    quota = quota + 1
    if vetoes then quota_over = quota_over + 1 end
  end
end
if quota > 0 and quota == quota_over then refused = true end
if refused and all_or_nothing then
  for i, key in ipairs(KEYS) do
    tell(i, hits[i].kind.roll(hits[i], before[key]), hits[i].over, false)
  end
  return answer
end
for key, move in pairs(last) do
  local hit, now = move.hit, move.state
  if hit.fixed then
    local delta = now[1] - (raw[key] and tonumber(raw[key]) or 0)
    if delta ~= 0 then
      redis.call('INCRBY', key, string.format('%.0f', delta))
      if not raw[key] then redis.call('EXPIRE', key, hit.ttl) end
    end
  else
    redis.call('SET', key, string.format('%.0f %.0f %.0f', now[1], now[2], now[3]),
      'PX', string.format('%.0f', hit.kind.lives(hit, now)))
  end
end
return answer
