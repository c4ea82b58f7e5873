-- Begin a session of a process, or go on with one. A process has one, its latest: whatever was asked in an earlier one
-- and comes later than this finds no session, and takes nothing.
--
-- KEYS  sessions, epoch, joined, a count of slots per limit
-- ARGV  what ('open', 'renew' or 'close'), session, its life in microseconds, its process, its number, an epoch in case
--       there is none, life of the keys in milliseconds; to open also, per count: how many slots are in use
-- Returns {1, now, epoch, sessions, processes that have joined}, or {-1} when there is nothing to go on
-- with.
local now = clock()
local what, session = ARGV[1], ARGV[2]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if what == 'close' then
  redis.call('ZREM', KEYS[1], session)
  redis.call('SREM', KEYS[3], ARGV[4])
  return {1}
end
if what == 'renew' and not is_alive(KEYS[1], session, now) then return {-1} end
if what == 'open' then
  for _, other in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    local process, number = string.match(other, '^(.*)%.(%d+)$')
    if process == ARGV[4] then
      if tonumber(number) > tonumber(ARGV[5]) then return {-1} end
      redis.call('ZREM', KEYS[1], other)
    end
  end
end
redis.call('ZADD', KEYS[1], now + ARGV[3], session)
for number = 4, #KEYS do take_slots(KEYS[number], session, ARGV[4 + number]) end
redis.call('SET', KEYS[2], ARGV[6], 'NX')
for number = 1, 3 do redis.call('PEXPIRE', KEYS[number], ARGV[7]) end
return {1, now, redis.call('GET', KEYS[2]), redis.call('ZRANGE', KEYS[1], 0, -1), redis.call('SMEMBERS', KEYS[3])}
