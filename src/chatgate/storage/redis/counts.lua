-- How amounts and slots are counted. Not run alone: it stands before `take`, `settle` and `session`.
--
-- A window is a string of numbers, eight bytes each: when it began, the first pair that still counts, the sum of those
-- that count, the grain, the last pair's time; then pairs of a time and an amount, ascending. Times are in microseconds
-- of the server's clock. What was taken counts for `length` from its time on. It is the log of admission/amount_log.py:
-- exact up to EXACT pairs, and with more of them neighbours become one that has the later time, so what leaves the
-- window late is at most a grain, 4 / EXACT of the limit, and nothing leaves it early.
--
-- Slots are a hash: how many each session has, and under '' the sum. Those of dead sessions are looked for when there
-- seems to be no room.
local HEAD, PAIR, EXACT, GRAINS, CHUNK, MOST = 40, 16, 2048, 4, 64, 2 ^ 53 - 1
local SLOTS_TTL_MS = 86400000

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function is_alive(sessions, session, now)
  local ends = redis.call('ZSCORE', sessions, session)
  return ends and tonumber(ends) > now
end

local function head_of(window)
  return struct.pack('<ddddd', window.born, window.first, window.total, window.grain, window.last)
end

local function pairs_of(window, from, count)
  return redis.call('GETRANGE', window.key, HEAD + from * PAIR, HEAD + (from + count) * PAIR - 1)
end

-- Keep only the pairs that count, or none.
local function rewrite(window, body)
  window.count, window.first = #body / PAIR, 0
  redis.call('SET', window.key, head_of(window) .. body, 'PX', window.ttl_ms)
end

-- The clock of the server may be set back. Then what counts is moved with it, so that nobody is locked out for longer
-- than a window; never too far, so nothing leaves the window early.
local function set_back(window, now)
  local back, body = window.last - now, {}
  local old = pairs_of(window, window.first, window.count - window.first)
  for at = 1, #old, PAIR do
    local stamp, amount = struct.unpack('<dd', old, at)
    body[#body + 1] = struct.pack('<dd', stamp - back, amount)
  end
  window.born, window.last = window.born - back, now
  rewrite(window, table.concat(body))
end

-- Read a window and let go of what has left it; nothing is written for a few pairs.
local function read(key, length, now)
  local window = {key = key, length = length, ttl_ms = math.ceil(length / 1000) + 1000,
    born = now, first = 0, total = 0, grain = 0, last = 0, count = 0}
  local head = redis.call('GETRANGE', key, 0, HEAD - 1)
  if #head < HEAD then return window end
  local born, first, total, grain, last = struct.unpack('<ddddd', head)
  if last <= now - length then return window end
  window.born, window.first, window.total, window.grain, window.last = born, first, total, grain, last
  window.count = (redis.call('STRLEN', key) - HEAD) / PAIR
  if last > now then set_back(window, now) end
  local edge, size, is_over = now - length, 1, false
  while not is_over and window.first < window.count do
    local part = pairs_of(window, window.first, size)
    for at = 1, #part, PAIR do
      local stamp, amount = struct.unpack('<dd', part, at)
      if stamp > edge then
        is_over = true
        break
      end
      window.first, window.total = window.first + 1, window.total - amount
    end
    size = CHUNK
  end
  if window.first - first >= CHUNK then
    rewrite(window, pairs_of(window, window.first, window.count - window.first))
  end
  return window
end

-- Drop the pairs that say nothing, and make one of neighbours if many are left nevertheless.
local function shorten(window, limit)
  local old = pairs_of(window, window.first, window.count - window.first)
  local full = 0
  for at = 1, #old, PAIR do
    local _, amount = struct.unpack('<dd', old, at)
    if amount > 0 then full = full + 1 end
  end
  window.grain = full > EXACT and math.floor(math.max(limit, window.total) * GRAINS / EXACT) or 0
  local body, stamp, held = {}, 0, 0
  for at = 1, #old, PAIR do
    local later, amount = struct.unpack('<dd', old, at)
    if amount > 0 then
      if held > 0 and held + amount > window.grain then
        body[#body + 1] = struct.pack('<dd', stamp, held)
        held = 0
      end
      stamp, held = later, held + amount
    end
  end
  if held > 0 then body[#body + 1] = struct.pack('<dd', stamp, held) end
  rewrite(window, table.concat(body))
end

local function add(window, now, amount, limit)
  amount = math.min(amount, MOST - window.total)
  if amount <= 0 then return end
  window.total = window.total + amount
  local is_empty = window.first >= window.count
  local before = window.last
  window.last = now
  if is_empty then
    -- What it was before has left, and so has all that anybody might give back.
    window.grain, window.born = 0, now
    rewrite(window, struct.pack('<dd', now, amount))
    return
  end
  local at = window.count
  if window.grain > 0 or before == now then
    local stamp, held = struct.unpack('<dd', pairs_of(window, window.count - 1, 1))
    if stamp == now or held + amount <= window.grain then
      at, amount = window.count - 1, held + amount
    end
  end
  redis.call('SETRANGE', window.key, 0, head_of(window))
  redis.call('SETRANGE', window.key, HEAD + at * PAIR, struct.pack('<dd', now, amount))
  redis.call('PEXPIRE', window.key, window.ttl_ms)
  if at == window.count then
    window.count = at + 1
    if window.count > 2 * EXACT then shorten(window, limit) end
  end
end

-- Take back a part of what was taken at a time. A window that began later has never heard of it.
local function give_back(window, taken_at, amount)
  if taken_at < window.born or taken_at <= window.now - window.length then return end
  local low, high = window.first, window.count
  while low < high do
    local middle = math.floor((low + high) / 2)
    local stamp = struct.unpack('<d', pairs_of(window, middle, 1))
    if stamp < taken_at then low = middle + 1 else high = middle end
  end
  if low >= window.count then return end
  local stamp, held = struct.unpack('<dd', pairs_of(window, low, 1))
  amount = math.min(amount, held)
  window.total = window.total - amount
  if window.total <= 0 then
    redis.call('DEL', window.key)
    return
  end
  redis.call('SETRANGE', window.key, HEAD + low * PAIR, struct.pack('<dd', stamp, held - amount))
  if low == window.count - 1 and held == amount then
    -- The last pair says when nothing is used any more.
    local size = window.count
    repeat
      size = size - 1
      stamp, held = struct.unpack('<dd', pairs_of(window, size - 1, 1))
    until held > 0
    window.last = stamp
    rewrite(window, pairs_of(window, window.first, size - window.first))
    return
  end
  redis.call('SETRANGE', window.key, 0, head_of(window))
end

-- In how long so much will have left that counts now; that much is there.
local function wait_of(window, now, amount)
  local from, stamp, held = window.first, now, 0
  while from < window.count do
    local part = pairs_of(window, from, CHUNK)
    for at = 1, #part, PAIR do
      stamp, held = struct.unpack('<dd', part, at)
      amount = amount - held
      if amount <= 0 then return stamp + window.length - now end
    end
    from = from + CHUNK
  end
  return stamp + window.length - now
end

local function slots_used(key, sessions, now, is_thorough)
  local used = tonumber(redis.call('HGET', key, '') or 0)
  if not is_thorough or used == 0 then return used end
  local all, alive = redis.call('HGETALL', key), 0
  for at = 1, #all, 2 do
    if all[at] ~= '' then
      if is_alive(sessions, all[at], now) then alive = alive + all[at + 1] else redis.call('HDEL', key, all[at]) end
    end
  end
  if alive == 0 then redis.call('DEL', key) else redis.call('HSET', key, '', alive) end
  return alive
end

local function take_slots(key, session, count)
  redis.call('HINCRBY', key, session, count)
  redis.call('HINCRBY', key, '', count)
  redis.call('PEXPIRE', key, SLOTS_TTL_MS)
end

local function free_slots(key, session, count)
  local held = math.min(tonumber(redis.call('HGET', key, session) or 0), count)
  if held <= 0 then return end
  if redis.call('HINCRBY', key, session, -held) <= 0 then redis.call('HDEL', key, session) end
  if redis.call('HINCRBY', key, '', -held) <= 0 then redis.call('DEL', key) end
end
