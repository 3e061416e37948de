-- Settles the hits of one request in one step; this is `decide::settle`, `decide::algorithm` and
-- `decide::reserve` over again. Flat on purpose: tables and closures cost more than what is
-- computed. Whole numbers are such that a double holds them exactly.
--
-- KEYS: per hit its counter, and after it the figures of its classes where it forecasts. The same
--       counter may occur again.
-- ARGV: 1 when refused requests move nothing, then one packed string of doubles per hit:
--   kind (0 fixed, 1 sliding, 2 bucket)  amount  refund (1)  limit  capacity
--   role (0 enforced, 1 quota, 2 observer)  seconds to live
--   sliding: window number, weight of the last window, 0, 0, 0, 0
--   bucket:  now in us, cost in us and 1/limit us, burst tolerance likewise, period in us
--   what the class may take: -1 all, -2 what a forecast leaves, or that much
--   of a forecast: rank  classes  window number  elapsed  early  horizon  margin horizon  margin max
--     inflow  inflow of previous  seconds to live
--     what was asked for where that is not the amount: -1 it is, or of a claim that much; of a
--       refund -1 nothing, or what was asked for and is no demand after all
--     whether there are guarantees (1), and then floor and minimum of each class
-- A fixed window is a number, a sliding one three packed doubles, its number and the hits in it
-- and in the one before, a bucket its instant, the part of 1/limit us, and 0. Figures are the
-- number of their window, then per class used, demand, average and last.
-- Answer: packed, per hit three doubles of state, over (1), moved (1), withheld.
local HIT, FORECAST = '<dddddddddddddd', '<ddddddddddddd'
-- Of the four classes that ship; others are put together when they are met.
local FIGURES = '<ddddddddddddddddd'
local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min
local unpacked, packed, repeated = struct.unpack, struct.pack, string.rep
local atomic, n = ARGV[1] == '1', #ARGV - 1
local found = redis.call('MGET', unpack(KEYS))
-- Per hit: 1-3 state, 4-6 the same as found, 7 over, 8 moved, 9 withheld, 10 counter, 11 what it
-- held, 12 kind, 13 amount, 14 refund, 15 role, 16 seconds to live, 17 instant, 18 figures,
-- 19 their name, 20 where the class's begin, 21 seconds they live, 22 used before, 23 how many,
-- 24 what a claim asks for, 25 whether it could pass at all, 26 the most demand that counts, 27 the
-- number of figures that begin now, 28 the number of the window.
local hits = {}
local by_counter, by_figures = n > 1 and {}, n > 1 and {}
local vetoes, quota, quota_over, at = 0, 0, 0, 0

for i = 1, n do
  local kind, amount, refund, limit, capacity, role, lives, a1, a2, a3, a4, a5, a6, cap, more =
    unpacked(HIT, ARGV[i + 1])
  refund = refund == 1
  at = at + 1
  local key, raw = KEYS[at], found[at]
  local earlier
  if by_counter then
    earlier = by_counter[key]
    by_counter[key] = i
  end

  -- The state, rolled; of a counter that was hit before, also as that left it.
  local s1, s2, s3, f1, f2, f3 = 0, 0, 0
  for pass = 1, earlier and 2 or 1 do
    local known = true
    if pass == 2 then
      local before = hits[earlier]
      s1, s2, s3 = before[1], before[2], before[3]
    elseif kind == 0 then
      s1 = max(0, tonumber(raw or 0))
    elseif raw and #raw == 24 then
      s1, s2, s3 = unpacked('<ddd', raw)
    else
      known = false
    end
    if kind == 1 then
      if known and s1 >= a1 then
        s1 = min(s1, a1 + 1)
      elseif known and s1 + 1 == a1 then
        s1, s2, s3 = a1, 0, s2
      else
        s1, s2, s3 = a1, 0, 0
      end
    elseif kind == 2 then
      local rate, top = max(limit, 1), a1 + a4
      s2 = min(s2, rate - 1)
      if not known or s1 < a1 or (s1 == a1 and s2 <= 0) then
        s1, s2 = a1, 0
      elseif s1 > top or (s1 == top and s2 > a5) then
        s1, s2 = top, a5
      end
    end
    if pass == 1 then f1, f2, f3 = s1, s2, s3 end
  end

  -- What is taken now, the state after the hit, and whether that is over.
  local value, after1, after2, after3, over = s1, s1, s2, s3, false
  if kind == 0 then
    after1 = refund and max(0, s1 - amount) or s1 + amount
    over = after1 > limit
  elseif kind == 1 then
    local weight = s1 > a1 and 1048576 or a2
    value = ceil(min(s3, 4294967295) * weight / 1048576) + s2
    if refund then
      after3 = max(0, s3 - max(0, amount - s2))
      after2 = max(0, s2 - amount)
    else
      after2 = s2 + amount
    end
    over = ceil(min(after3, 4294967295) * weight / 1048576) + after2 > limit
  elseif kind == 2 then
    local rate = max(limit, 1)
    value = ceil(((s1 - a1) * rate + s2) / a6)
    if refund then
      after1, after2 = s1 - a2, s2 - a3
      if after2 < 0 then after1, after2 = after1 - 1, after2 + rate end
      if after1 < a1 or (after1 == a1 and after2 <= 0) then after1, after2 = a1, 0 end
    else
      after1, after2 = s1 + a2, s2 + a3
      if after2 >= rate then after1, after2 = after1 + 1, after2 - rate end
    end
    local top = a1 + a4
    over = after1 > top or (after1 == top and after2 > a5)
  else
    return redis.error_reply('ERR unknown kind of counter ' .. kind)
  end

  -- What the class may take.
  local figures, name, own, figures_live, width, asked, first, this
  if cap == -2 then
    local rank, classes, number, elapsed, early, horizon, margin_horizon, margin_max, inflow,
      inflow_of_previous, live, claim, guarantees, list = unpacked(FORECAST, ARGV[i + 1], more)
    at = at + 1
    name, own, figures_live, width = KEYS[at], 2 + 4 * rank, live, 1 + 4 * classes
    asked, this = claim ~= -1 and claim, number
    figures = by_figures and by_figures[name]
    -- Element 0: whether more than the class's own is to be written.
    if figures then
      figures[0] = true
    else
      local known = found[at]
      if known and #known == 8 * width then
        figures = { unpacked(width == 17 and FIGURES or '<' .. repeated('d', width), known) }
      end
      if not figures or floor(figures[1]) > number + 1 then
        figures = { number }
        figures[0] = true
        for q = 2, 4 * classes, 4 do
          figures[q], figures[q + 1], figures[q + 2], figures[q + 3] = 0, 0, 0, -5
        end
      end
      if by_figures then by_figures[name] = figures end
    end
    local windows = number - floor(figures[1])
    if windows > 0 then
      figures[0], figures[1] = true, number
      for q = 2, 4 * classes, 4 do
        local demand, average = figures[q + 1], figures[q + 2]
        if average == 0 or demand > average + 3 * math.sqrt(average) then
          average = demand
        else
          average = average + (demand - average) * 0.25
        end
        local again = windows - 1
        while again > 0 and again <= 4 do
          average = average - average * 0.25
          again = again - 1
        end
        if number - figures[q + 3] > 4 then average = 0 end
        figures[q], figures[q + 1], figures[q + 2] = 0, 0, average
      end
    end
    local window = floor(figures[1])
    local since = max(early - (figures[1] - window), 0.0078125)
    first = early > 0.0078125 and early < 1 and window + early or window
    local given
    if guarantees == 1 then
      given = { unpacked('<' .. repeated('d', 2 * classes), ARGV[i + 1], list) }
    end
    local expected, promised, margin, below, others = 0, 0, 0, 0, 0
    for class = 0, given and classes - 1 or rank - 1 do
      local q = 2 + 4 * class
      local active = window - figures[q + 3] <= 4
      local unmet, guarantee = 0, 0
      if given then
        if active then unmet = max(given[2 * class + 1] - figures[q], 0) end
        guarantee = max(given[2 * class + 2], unmet)
      end
      if class < rank then
        local keeps = guarantee
        if active then
          local rate, asks = figures[q + 2], figures[q + 1]
          local now = asks / elapsed
          if now > rate then rate = now end
          if since < elapsed then
            now = (asks - math.sqrt(asks)) / since
            if now > rate then rate = now end
          end
          local demand, deviations = rate * horizon, 3 * math.sqrt(rate * margin_horizon)
          if demand > keeps then keeps = demand end
          margin = margin + (deviations < margin_max and deviations or margin_max)
        end
        expected = expected + keeps
        promised = promised + guarantee
        others = others + unmet
      elseif class > rank then
        below = below + unmet
        others = others + unmet
      end
    end
    local need = max(expected - (inflow + s3 * inflow_of_previous), promised)
    cap = max(floor(capacity - need - margin - below), 0)
    if given then
      local free = given[2 * rank + 1] - figures[own]
      if free > 0 then cap = max(cap, min(value + free, capacity - others)) end
    end
  end
  local withheld = cap == -1 and 0 or capacity - cap
  if withheld > 0 and not refund and value + amount > cap then over = true end

  local moved = refund or not over or (kind == 0 and cap == -1 and not atomic)
  local used = figures and figures[own]
  if moved then
    s1, s2, s3 = after1, after2, after3
    if figures then figures[own] = refund and max(used - amount, 0) or used + amount end
  end
  hits[i] = {
    s1, s2, s3, f1, f2, f3, over, moved, withheld, key, raw, kind, amount, refund, role, lives, a1,
    figures or false, name, own, figures_live, used, width, asked, amount <= capacity,
    2 * max(capacity, limit), first, this,
  }
  if role == 1 then
    quota = quota + 1
    if over and not refund then quota_over = quota_over + 1 end
  elseif role == 0 and over and not refund then
    vetoes = vetoes + 1
  end
end

local quota_refuses = quota > 0 and quota == quota_over
if atomic and (vetoes > 0 or quota_refuses) then
  for i = n, 1, -1 do
    local hit = hits[i]
    if hit[18] then hit[18][hit[20]] = hit[22] end
    hit[1], hit[2], hit[3], hit[8] = hit[4], hit[5], hit[6], false
  end
end

-- What is refused for another limit's sake is no demand on this one, and neither is what could never
-- pass; but claims, which only travel together, bring demand that was.
local answers, counters, changed = n > 1 and {}, n > 1 and {}, n > 1 and {}
local answer
for i = 1, n do
  local hit = hits[i]
  local moved, over, refund, figures, amount = hit[8], hit[7], hit[14], hit[18], hit[13]
  local claim = hit[24]
  local demand = claim or amount
  if figures and (amount > 0 or demand > 0) then
    local others = vetoes
    if over and not refund and hit[15] == 0 then others = others - 1 end
    if quota_refuses and hit[15] ~= 1 then others = others + 1 end
    local asked = not refund and (moved or others == 0 and hit[25] or claim)
    if asked then
      local own, known = hit[20], false
      for q = 5, hit[23], 4 do
        known = known or floor(figures[1]) - figures[q] <= 4
      end
      if not known then figures[0], figures[1] = true, hit[27] end
      figures[own + 1] = min(figures[own + 1] + demand, hit[26])
      figures[own + 3] = max(figures[own + 3], floor(figures[1]))
    end
    if refund and moved and claim and floor(figures[1]) == hit[28] then
      local own = hit[20]
      figures[own + 1] = max(figures[own + 1] - claim, 0)
      if figures[own + 1] == 0 and figures[own + 2] == 0 then figures[own + 3] = -5 end
    end
    if asked or moved then
      if changed then changed[hit[19]] = i else changed = 1 end
    end
  end
  if moved and amount > 0 then
    if counters then counters[hit[10]] = i else counters = 1 end
  end
  answer = packed('<dddddd', hit[1], hit[2], hit[3], over and 1 or 0, moved and 1 or 0, hit[9])
  if answers then answers[i] = answer end
end

for i = 1, n do
  local hit = hits[i]
  local kind, lives = hit[12], hit[16]
  if counters == i or (n > 1 and counters[hit[10]] == i) then
    local key, raw, now = hit[10], hit[11], hit[1]
    if kind > 0 then
      lives = lives * 1000
      if kind == 2 then lives = lives + ceil((now - hit[17]) / 1000) end
      redis.call('SET', key, packed('<ddd', now, hit[2], hit[3]), 'PX', lives)
    elseif raw then
      local delta = now - tonumber(raw)
      if delta ~= 0 then redis.call('INCRBY', key, delta) end
    elseif now > 0 then
      redis.call('SET', key, now, 'EX', lives)
    end
  end
  if changed == i or (n > 1 and changed[hit[19]] == i) then
    local figures, own, width = hit[18], hit[20], hit[23]
    if not figures[0] then
      -- The key has had its time to live since the window's first hit.
      local changes = packed('<dddd', figures[own], figures[own + 1], figures[own + 2], figures[own + 3])
      redis.call('SETRANGE', hit[19], 8 * own - 8, changes)
    else
      local format = width == 17 and FIGURES or '<' .. repeated('d', width)
      redis.call('SET', hit[19], packed(format, unpack(figures, 1, width)), 'EX', hit[21])
    end
  end
end
return answers and table.concat(answers) or answer
