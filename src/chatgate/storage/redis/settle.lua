-- Correct what a call has taken, once it has ended.
--
-- KEYS  a count per limit that changes
-- ARGV  session, per limit: kind ('window' or 'slots'), the change (below 0 is given back), when it was taken, most,
--       length in microseconds
local now = clock()
for number, key in ipairs(KEYS) do
  local at = 2 + (number - 1) * 5
  local change = tonumber(ARGV[at + 1])
  if ARGV[at] == 'slots' then
    free_slots(key, ARGV[1], -change)
  else
    local window = read(key, tonumber(ARGV[at + 4]), now)
    window.now = now
    if change > 0 then
      add(window, now, change, tonumber(ARGV[at + 3]))
    else
      give_back(window, tonumber(ARGV[at + 2]), -change)
    end
  end
end
return 1
