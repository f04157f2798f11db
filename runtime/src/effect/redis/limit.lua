-- Decides on one request under all of its limits, in one atomic step.
--   KEYS[1]  stem of the counters; its {hash tag} keeps all of them on one node
--   ARGV     hits (below 0 to give some back), count rejected (0 or 1), how many more to charge as far as there is room,
--            when what is given back was charged (ms by this clock, else 0), then for each limit: algorithm, name, period,
--            limit, burst, queue, and the edges of four windows around the caller's clock where this script does not know
--            the calendar, else ''
-- Answers the server's clock in ms, how many more were charged, and the state of each limit before this request:
--   fixed: count    sliding: count, count of the window before    bucket: level
-- The same arithmetic as the gateway's, which turns the states into its verdict.
local base = KEYS[1]
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

local reply, writes, refused = { math.floor(ms), 0 }, {}, false
for i = 5, #ARGV, 7 do
  local algorithm, name, period = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local limit, burst, queue = tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5])
  local edges = ARGV[i + 6]
  local size = length[period]
  local needed = math.max(hits, 1)
  if algorithm == 'fixed' then
    local start, real = sec - sec % size, size
    if edges ~= '' then
      local from, to = window(edges)
      start, real = from, to - from
    elseif period == 'week' then
      -- 1970 began on a Thursday.
      start = sec - (sec + 3 * 86400) % size
    elseif period == 'month' then
      start, real = calendar(period) * 86400, 31 * 86400
    elseif period == 'year' then
      start, real = calendar(period) * 86400, 366 * 86400
    end
    local key = base .. ':' .. string.format('%.0f', start * 1000) .. ':' .. name
    local count = tonumber(redis.call('GET', key) or 0)
    refused = refused or limit - count <= needed - 1
    extra = math.min(extra, math.floor(limit - count) - hits)
    reply[#reply + 1] = count
    writes[#writes + 1] = { key, start + real - sec, since = start * 1000 }
  elseif algorithm == 'sliding' then
    local start = sec - sec % size
    local stem = base .. ':sliding:' .. name .. ':'
    local key = stem .. string.format('%.0f', start * 1000)
    local count = tonumber(redis.call('GET', key) or 0)
    local previous = tonumber(redis.call('GET', stem .. string.format('%.0f', (start - size) * 1000)) or 0)
    local passed = (ms - start * 1000) / (size * 1000)
    local room = limit - (previous * (1 - passed) + count) + 1e-9
    refused = refused or room < needed
    extra = math.min(extra, math.floor(room) - hits)
    reply[#reply + 1] = count
    reply[#reply + 1] = previous
    writes[#writes + 1] = { key, start + 2 * size - sec, since = start * 1000 }
  else
    local key = base .. ':bucket:' .. name
    local level, at = 0, ms
    local held = redis.call('GET', key)
    if held then
      local l, a = string.match(held, '^(%S+) (%S+)$')
      level, at = tonumber(l), tonumber(a)
      if at > ms + size * 1000 then
        -- The clock was set back: nobody is locked out until it has caught up.
        level, at = 0, ms
      end
      level = math.max(0, level - math.max(0, ms - at) * limit / (size * 1000))
      at = math.max(ms, at)
    end
    refused = refused or burst + queue - level + 1e-9 < needed
    extra = math.min(extra, math.floor(burst - level + 1e-9) - hits)
    reply[#reply + 1] = string.format('%.17g', level)
    writes[#writes + 1] = { key, level = level, at = at, rate = limit / size, most = burst + queue + limit }
  end
end

local function charge(w, by)
  if w.level then
    local level = math.max(0, math.min(w.level + by, w.most))
    local expiry = math.ceil(level / w.rate) + 1
    redis.call('SET', w[1], string.format('%.17g %.3f', level, w.at), 'EX', expiry)
  else
    local count = redis.call('INCRBY', w[1], by)
    if count == by then
      redis.call('EXPIRE', w[1], w[2])
    elseif count < 0 then
      redis.call('SET', w[1], 0, 'EX', w[2])
    end
  end
end

if hits < 0 then
  for _, w in ipairs(writes) do
    -- Nothing is given back to a window that is over, or to one that began after it was charged.
    local over = charged_ms > 0 and w.since and w.since > charged_ms
    if not over and redis.call('EXISTS', w[1]) == 1 then
      charge(w, hits)
    end
  end
else
  reply[2] = refused and 0 or math.max(0, extra)
  local by = (always or not refused) and hits + reply[2] or 0
  if by > 0 then
    for _, w in ipairs(writes) do
      charge(w, by)
    end
  end
end
return reply
