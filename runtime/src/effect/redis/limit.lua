-- Decides on one request under all of its limits, in one atomic step.
--   KEYS[1]  a hash of all counters of the caller: one key, so that a slot of a cluster can move while it is counted in
--   ARGV     hits (below 0 to give some back), count rejected (0 or 1), how many more to charge as far as there is room,
--            when what is given back was charged (ms by this clock, else 0), then for each limit: algorithm, name, period,
--            limit, burst, queue, and the edges of four windows around the caller's clock where this script does not know
--            the calendar, else ''
-- Answers the server's clock in ms, how many more were charged, and the state of each limit before this request:
--   fixed: count    sliding: count, count of the window before    bucket: level
-- The same arithmetic as the gateway's, which turns the states into its verdict.
local key = KEYS[1]
local hits, always = tonumber(ARGV[1]), ARGV[2] == '1'
local extra, charged_ms = tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local sec = tonumber(time[1])
-- With a fraction: in whole ms a bucket would drain up to one too early.
local ms = sec * 1000 + tonumber(time[2]) / 1000
local length =
  { second = 1, minute = 60, hour = 3600, day = 86400, week = 604800, month = 2592000, year = 31536000 }

-- Days since 1970 of the first day of this month or year; years are counted from March.
local function calendar(period)
  local days = math.floor(sec / 86400)
  local z = days + 719468
  local e = z % 146097
  local y = math.floor((e - math.floor(e / 1460) + math.floor(e / 36524) - math.floor(e / 146096)) / 365)
  local d = e - (365 * y + math.floor(y / 4) - math.floor(y / 100))
  local m = math.floor((5 * d + 2) / 153)
  if period == 'month' then
    return days - (d - math.floor((153 * m + 2) / 5))
  end
  if m >= 10 then
    return days - (d - 306)
  end
  local leap = (y % 4 == 0 and (y % 100 ~= 0 or y == 0)) and 1 or 0
  return days - (d + 59 + leap)
end

-- Start and end of the window around now, of those that the caller sent.
local function window(edges)
  local from = nil
  for edge in string.gmatch(edges, '%d+') do
    local at = tonumber(edge)
    if from and sec < at then
      return from, at
    end
    from = at
  end
  -- The clocks are more than a window apart: count under the last one that is known.
  return from, sec + 2 * 86400
end

-- A fixed window's start and its end or, where that is far away, what cannot be before it.
local function fixed_window(period, edges)
  local size = length[period]
  if edges ~= '' then
    return window(edges)
  elseif period == 'week' then
    -- 1970 began on a Thursday.
    local start = sec - (sec + 3 * 86400) % size
    return start, start + size
  elseif period == 'month' or period == 'year' then
    local start = calendar(period) * 86400
    return start, start + size + 2 * 86400
  end
  return sec - sec % size, sec - sec % size + size
end

-- Each counter is one field, `ALGORITHM:PERIOD:NAME`, with up to three numbers: a window's start in ms, its count and that
-- of the window before; of a bucket, when its level was reckoned, and the level.
local rules, fields = {}, {}
for i = 5, #ARGV, 7 do
  rules[#rules + 1] = {
    algorithm = ARGV[i], period = ARGV[i + 2], limit = tonumber(ARGV[i + 3]), burst = tonumber(ARGV[i + 4]),
    queue = tonumber(ARGV[i + 5]), edges = ARGV[i + 6],
  }
  fields[#fields + 1] = ARGV[i] .. ':' .. ARGV[i + 2] .. ':' .. ARGV[i + 1]
end
local held = redis.call('HMGET', key, unpack(fields))

local reply, refused = { math.floor(ms), 0 }, false
local needed = math.max(hits, 1)
for i, rule in ipairs(rules) do
  local size = length[rule.period]
  local at, count, previous
  if held[i] then
    local a, c, p = string.match(held[i], '^(%S+) (%S+) (%S+)$')
    at, count, previous = tonumber(a), tonumber(c), tonumber(p)
    rule.held = true
  end
  local room
  if rule.algorithm == 'bucket' then
    if not at or at > ms + size * 1000 then
      -- Never seen; or the clock was set back, and nobody is locked out until it has caught up.
      at, count = ms, 0
    end
    count = math.max(0, count - math.max(0, ms - at) * rule.limit / (size * 1000))
    at, previous = math.max(ms, at), 0
    room = rule.burst - count + 1e-9
    refused = refused or room + rule.queue < needed
    reply[#reply + 1] = string.format('%.17g', count)
  else
    local start, finish
    if rule.algorithm == 'fixed' then
      start, finish = fixed_window(rule.period, rule.edges)
    else
      start = sec - sec % size
      finish = start + 2 * size
    end
    local began = start * 1000
    -- A clock that was set back a little goes on in the window that it was in.
    if not (at and at >= began and at - began <= (finish - start) * 1000) then
      previous = at and at + size * 1000 == began and count or 0
      at, count = began, 0
    end
    rule.expiry = finish - sec
    if rule.algorithm == 'fixed' then
      room = rule.limit - count
      refused = refused or room <= needed - 1
      reply[#reply + 1] = string.format('%.17g', count)
    else
      local passed = math.max(0, ms - at) / (size * 1000)
      room = rule.limit - (previous * (1 - passed) + count) + 1e-9
      refused = refused or room < needed
      reply[#reply + 1] = string.format('%.17g', count)
      reply[#reply + 1] = string.format('%.17g', previous)
    end
  end
  extra = math.min(extra, math.floor(room) - hits)
  rule.at, rule.count, rule.previous = at, count, previous
end

local by = hits
if hits >= 0 then
  reply[2] = refused and 0 or math.max(0, extra)
  by = (always or not refused) and hits + reply[2] or 0
end
if by == 0 then
  return reply
end

local writes, expiry = {}, 1
for i, rule in ipairs(rules) do
  local bucket = rule.algorithm == 'bucket'
  -- Nothing is given back to a window that is over, or to one that began after it was charged.
  local over = by < 0 and (not rule.held or (not bucket and charged_ms > 0 and rule.at > charged_ms))
  if not over then
    local count = math.max(0, rule.count + by)
    if bucket then
      count = math.min(count, rule.burst + rule.queue + rule.limit)
      rule.expiry = math.ceil(count / rule.limit * length[rule.period]) + 1
    end
    writes[#writes + 1] = fields[i]
    writes[#writes + 1] = string.format('%.3f %.17g %.17g', rule.at, count, rule.previous)
    expiry = math.max(expiry, rule.expiry)
  end
end
if #writes > 0 then
  local lives = redis.call('TTL', key)
  redis.call('HSET', key, unpack(writes))
  -- Other limits of the same caller may need it longer.
  if lives < expiry then
    redis.call('EXPIRE', key, expiry)
  end
end
return reply
