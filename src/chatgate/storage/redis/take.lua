-- Take a call from all of its limits and budgets, or from none; or say how it stands with the limits.
--
-- KEYS  sessions, epoch, a count per limit, an account per budget, the hold
-- ARGV  session, until when (in microseconds) there is somebody who waits for the answer, what ('take' or 'look'),
--       how many limits,
--       per limit: kind ('window' or 'slots'), amount, most, length in microseconds
--       with accounts also: epoch, amount, the hold's life, how many accounts, their life each, how many budgets,
--       per budget: its account's number, most, percent from which it is worth a warning (0: never)
-- Lives are in milliseconds.
-- Returns {1 taken or 0 not, now, per limit: used, until nothing is, wait; per account: spent, held; per budget: 1 for
-- a warning}, where "used" is before the call; or {-1} without a session or too late, {-2} in another epoch, {-3} when an account is
-- not known, {-4} when the call has a hold.
local now = clock()
local session, is_taking, count = ARGV[1], ARGV[3] == 'take', tonumber(ARGV[4])
if is_taking and (now > tonumber(ARGV[2]) or not is_alive(KEYS[1], session, now)) then return {-1} end

local answer, taken, at, fits = {1, now}, {}, 5, true
for number = 1, count do
  local key, kind = KEYS[2 + number], ARGV[at]
  local amount, most, length = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  at = at + 4
  local used, reset, wait = 0, 0, 0
  if kind == 'slots' then
    used = slots_used(key, KEYS[1], now, false)
    if used + amount > most then used = slots_used(key, KEYS[1], now, true) end
    if used + amount > most then fits = false end
    taken[number] = {key = key, amount = amount}
  else
    local window = read(key, length, now)
    used = window.total
    if used > 0 then reset = window.last + length - now end
    if used + amount > most then
      fits = false
      if amount <= most then wait = wait_of(window, now, amount - (most - used)) end
    end
    taken[number] = {window = window, amount = amount, most = most}
  end
  answer[#answer + 1], answer[#answer + 2], answer[#answer + 3] = used, reset, wait
end

local accounts, budgets, hold, amount, hold_ttl = {}, {}, nil, 0, 0
if ARGV[at] then
  if redis.call('GET', KEYS[2]) ~= ARGV[at] then return {-2} end
  amount, hold_ttl = ARGV[at + 1], ARGV[at + 2]
  local many = tonumber(ARGV[at + 3])
  at = at + 4
  hold = KEYS[2 + count + many + 1]
  if redis.call('EXISTS', hold) == 1 then return {-4} end
  for number = 1, many do
    local key = KEYS[2 + count + number]
    local found = redis.call('HMGET', key, 'spent', 'held', 'loaded')
    if not found[3] then return {-3} end
    accounts[number] = {key = key, spent = tonumber(found[1] or 0), held = tonumber(found[2] or 0), ttl = ARGV[at]}
    at = at + 1
  end
  for number = 1, tonumber(ARGV[at]) do
    local account = accounts[tonumber(ARGV[at + 1])]
    local most, percent = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
    at = at + 3
    local after = account.spent + account.held + tonumber(amount)
    if after > most then fits = false end
    budgets[number] = {account = account, is_warning = percent > 0 and percent * most <= after * 100}
  end
end

if not fits then answer[1] = 0 end
if fits and is_taking then
  for number = 1, count do
    local each = taken[number]
    if each.window then add(each.window, now, each.amount, each.most)
    elseif each.amount > 0 then take_slots(each.key, session, each.amount) end
  end
  if hold then redis.call('SET', hold, amount, 'PX', hold_ttl) end
  for _, account in ipairs(accounts) do
    account.held = redis.call('HINCRBY', account.key, 'held', amount)
    redis.call('PEXPIRE', account.key, account.ttl)
  end
end
for _, account in ipairs(accounts) do
  answer[#answer + 1], answer[#answer + 2] = account.spent, account.held
end
for _, budget in ipairs(budgets) do
  local is_new = fits and is_taking and budget.is_warning and redis.call('HSETNX', budget.account.key, 'warned', 1) == 1
  answer[#answer + 1] = is_new and 1 or 0
end
return answer
