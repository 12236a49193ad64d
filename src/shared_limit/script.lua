-- One bucket of the generic cell rate algorithm, kept as what is owed and when that was so.
-- ARGV: interval, tolerance, ceiling (ticks), ticks per nanosecond, 1 to charge or -1 to give back.
-- Answers {1, owed after} when it was charged or given back, {0, owed now} when it was refused.
local interval, tolerance, ceiling = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local ticks, cost = tonumber(ARGV[4]), tonumber(ARGV[5])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local owed = 0
local held = redis.call('GET', KEYS[1])
if held then
  local o, i, t, at = string.match(held, '^(%d+) (%d+) (%d+) (%d+)$')
  if o then
    -- A clock that went back forgives nothing and adds nothing.
    local passed = math.max(0, now - tonumber(at))
    owed = math.max(0, tonumber(o) - passed * 1000 * tonumber(t))
    if tonumber(i) ~= interval then
      -- Another rate since: the same number of requests.
      owed = math.floor(owed / tonumber(i) * interval)
    end
    owed = math.min(owed, ceiling)
  end
end

local after = owed + interval * cost
if cost > 0 and after > ceiling then
  return {0, owed}
end
if after <= 0 then
  redis.call('DEL', KEYS[1])
  return {1, 0}
end
-- Once nothing is owed a key is as good as absent.
local life = math.ceil(after / ticks / 1000000) + 1
redis.call('SET', KEYS[1], string.format('%.0f %.0f %.0f %.0f', after, interval, ticks, now), 'PX', string.format('%.0f', life))
return {1, after}
