-- Decides on one request under all of its limits, in one atomic step.
--   KEYS[1]  stem of the counters; its {hash tag} keeps all of them on one node
--   ARGV     hits, count rejected (0 or 1), algorithm, then for each limit: period, limit, burst
-- Answers the server's clock in ms and the state of each limit before this request:
--   fixed: count    sliding: count, count of the window before    bucket: level
-- The same arithmetic as the gateway's, which turns the states into its verdict.
local base = KEYS[1]
local hits, always, algorithm = tonumber(ARGV[1]), ARGV[2] == '1', ARGV[3]
local time = redis.call('TIME')
local sec = tonumber(time[1])
local ms = sec * 1000 + math.floor(tonumber(time[2]) / 1000)
local length = { second = 1, minute = 60, hour = 3600, day = 86400, month = 2592000, year = 31536000 }

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

local reply, writes, refused = { ms }, {}, false
for i = 4, #ARGV, 3 do
  local period, limit, burst = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local size = length[period]
  local needed = math.max(hits, 1)
  if algorithm == 'fixed' then
    local start, real = sec - sec % size, size
    if period == 'month' then
      start, real = calendar(period) * 86400, 31 * 86400
    elseif period == 'year' then
      start, real = calendar(period) * 86400, 366 * 86400
    end
    local key = base .. ':' .. string.format('%.0f', start * 1000) .. ':' .. period
    local count = tonumber(redis.call('GET', key) or 0)
    refused = refused or limit - count <= needed - 1
    reply[#reply + 1] = count
    writes[#writes + 1] = { key, start + real - sec }
  elseif algorithm == 'sliding' then
    local start = sec - sec % size
    local stem = base .. ':sliding:' .. period .. ':'
    local key = stem .. string.format('%.0f', start * 1000)
    local count = tonumber(redis.call('GET', key) or 0)
    local previous = tonumber(redis.call('GET', stem .. string.format('%.0f', (start - size) * 1000)) or 0)
    local passed = (ms - start * 1000) / (size * 1000)
    refused = refused or limit - (previous * (1 - passed) + count) + 1e-9 < needed
    reply[#reply + 1] = count
    reply[#reply + 1] = previous
    writes[#writes + 1] = { key, start + 2 * size - sec }
  else
    local key = base .. ':bucket:' .. period
    local level, at = 0, ms
    local held = redis.call('GET', key)
    if held then
      local l, a = string.match(held, '^(%S+) (%S+)$')
      level, at = tonumber(l), tonumber(a)
      level = math.max(0, level - math.max(0, ms - at) * limit / (size * 1000))
    end
    refused = refused or burst - level + 1e-9 < needed
    reply[#reply + 1] = string.format('%.17g', level)
    local expiry = math.ceil((level + hits) / limit * size) + 1
    writes[#writes + 1] = { key, expiry, string.format('%.17g %.0f', level + hits, ms) }
  end
end

if hits > 0 and (always or not refused) then
  for _, w in ipairs(writes) do
    if w[3] then
      redis.call('SET', w[1], w[3], 'EX', w[2])
    elseif redis.call('INCRBY', w[1], hits) == hits then
      redis.call('EXPIRE', w[1], w[2])
    end
  end
end
return reply
