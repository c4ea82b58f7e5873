-- What is spent and held in the accounts of budgets, once a call has ended, and while an account becomes known.
--
-- An account is a hash of `spent`, `held`, `warned`, and `loaded` once its sum is known: until then the calls that count
-- in it are remembered one by one in another hash, by their id: what they cost, or '' while they are under way.
--
-- KEYS  epoch, joined, then as said below
-- ARGV  what, epoch, then as said below. Lives are in milliseconds. Returns {-2} in another epoch.
if redis.call('GET', KEYS[1]) ~= ARGV[2] then return {-2} end
local what = ARGV[1]

local function charge(account, calls, id, cost, ttl)
  if redis.call('HEXISTS', account, 'loaded') == 1 then
    redis.call('HINCRBY', account, 'spent', cost)
  else
    redis.call('HSET', calls, id, cost)
    redis.call('PEXPIRE', calls, ttl)
  end
  redis.call('PEXPIRE', account, ttl)
end

-- A hold becomes what the call cost. KEYS: hold, per account: account, its calls. ARGV: id, cost, per account: life.
-- Returns {1}, or {0} when there is no such hold.
if what == 'settle' then
  local held = redis.call('GET', KEYS[3])
  if not held or held == 'ended' then return {0} end
  redis.call('DEL', KEYS[3])
  for at = 4, #KEYS, 2 do
    if held ~= '0' then redis.call('HINCRBY', KEYS[at], 'held', '-' .. held) end
    charge(KEYS[at], KEYS[at + 1], ARGV[3], ARGV[4], ARGV[5 + (at - 4) / 2])
  end
  return {1}
end

-- A process tells of a call that it began in an earlier epoch. KEYS: hold, per account: account, its calls.
-- ARGV: id, amount held or '', cost or '', the hold's life, per account: life.
if what == 'tell' then
  -- That a call which has ended was told of is remembered in place of its hold.
  local held = ARGV[4] == '' and 'ended' or ARGV[4]
  if not redis.call('SET', KEYS[3], held, 'NX', 'PX', ARGV[6]) then return {0} end
  for at = 4, #KEYS, 2 do
    local ttl = ARGV[7 + (at - 4) / 2]
    if ARGV[4] == '' then
      charge(KEYS[at], KEYS[at + 1], ARGV[3], ARGV[5], ttl)
    else
      redis.call('HINCRBY', KEYS[at], 'held', ARGV[4])
      if redis.call('HEXISTS', KEYS[at], 'loaded') == 0 then
        redis.call('HSET', KEYS[at + 1], ARGV[3], '')
        redis.call('PEXPIRE', KEYS[at + 1], ttl)
      end
      redis.call('PEXPIRE', KEYS[at], ttl)
    end
  end
  return {1}
end

-- A process has told all of its calls. ARGV: process, life of the key.
if what == 'join' then
  redis.call('SADD', KEYS[2], ARGV[3])
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
  return {1}
end

-- Which calls are remembered of accounts? KEYS: per account: account, its calls.
-- Returns {1, per account: 1 when it is known, ids}.
if what == 'ask' then
  local answer = {1}
  for at = 3, #KEYS, 2 do
    answer[#answer + 1] = redis.call('HEXISTS', KEYS[at], 'loaded')
    answer[#answer + 1] = redis.call('HKEYS', KEYS[at + 1])
  end
  return answer
end

-- An account becomes known. KEYS: account, its calls. ARGV: life, what is spent without the calls named, their ids.
-- Returns {1}, {0} when it is known already, {-3} when a call is remembered that is not named.
if redis.call('HEXISTS', KEYS[3], 'loaded') == 1 then return {0} end
local named = {}
for at = 5, #ARGV do named[ARGV[at]] = true end
local calls = redis.call('HGETALL', KEYS[4])
for at = 1, #calls, 2 do
  if not named[calls[at]] then return {-3} end
end
redis.call('HSET', KEYS[3], 'loaded', 1, 'spent', ARGV[4])
for at = 2, #calls, 2 do
  if calls[at] ~= '' then redis.call('HINCRBY', KEYS[3], 'spent', calls[at]) end
end
redis.call('DEL', KEYS[4])
redis.call('PEXPIRE', KEYS[3], ARGV[3])
return {1}
